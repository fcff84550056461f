"""Export: lowering of trained networks to integers, netx files and NIR graphs."""
