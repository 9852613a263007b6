"""How GPU kernels are compiled, sized and launched, whatever they compute."""
