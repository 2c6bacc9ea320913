"""Pure updates: imagination, advantages, policy improvement. No threads, no configuration."""
