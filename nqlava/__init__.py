"""The integer network and what judges it: the ground that training, export and deployment stand on."""
