"""The commands: one file each, the only place where the rooms are wired together."""
