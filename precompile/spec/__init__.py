"""From a YAML file to the calls that it enumerates."""
