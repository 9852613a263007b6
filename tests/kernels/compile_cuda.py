"""What NVRTC makes of a source, and what it remarks on. No GPU and no driver are needed."""


def compiled(source, name, defines, arch):
    """A cubin for ``sm_...``, PTX for ``compute_...``; and the log, in which ptxas remarks too."""
    from cuda.bindings import nvrtc

    def call(function, *given):
        error, *found = function(*given)
        assert not int(error), error
        return found[0] if found else None

    def read(size, get):
        count = call(size, made)
        # NVRTC writes into these bytes. Python shares those of length 1 with everybody, so there is one more.
        room = bytes(bytearray(count + 1))
        call(get, made, room)
        return room[:count]

    options = [f"--gpu-architecture={arch}", *(f"-D{key}={value}" for key, value in defines)]
    made = call(nvrtc.nvrtcCreateProgram, source.encode(), f"{name}.cu".encode(), 0, [], [])
    call(nvrtc.nvrtcCompileProgram, made, len(options), [option.encode() for option in options])
    form = "PTX" if arch.startswith("compute") else "CUBIN"
    code = read(getattr(nvrtc, f"nvrtcGet{form}Size"), getattr(nvrtc, f"nvrtcGet{form}"))
    return code, read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode()
