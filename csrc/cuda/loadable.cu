// Nothing. A driver that loads this loads whatever else the compiler makes for its device.
extern "C" __global__ void loadable() {}
