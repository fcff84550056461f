"""The network as portable C: what to write, the writer, and programs that run what was written."""
