"""The promises of the guard, checked on an accelerator."""
