"""From what the DSL compiled to a blob that has been checked, and from a blob to a function in a process."""
