"""What survives a crash: a journal of every step and snapshots, in files whose loading executes no code."""
