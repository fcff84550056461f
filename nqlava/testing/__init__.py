"""Tools for tests of networks and engines; needs the extra ``test``. Nothing else in the packages uses it."""
