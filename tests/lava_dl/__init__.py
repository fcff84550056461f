"""Tests of lava-dl's networks, mirroring deploy/lava_dl/."""
