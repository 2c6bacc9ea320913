"""When and where workers run: channels, schedule, gate, clocks, trace, backends."""
