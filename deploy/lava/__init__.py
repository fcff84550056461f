"""Running integer networks in Lava. Only this folder imports Lava.

Lava's compiler executes every Python file in the folder of a process: modules here must do nothing but define.
"""
