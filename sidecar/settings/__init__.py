"""How settings come about: read, merge, complain, mask. What they are is in `sidecar.config`."""
