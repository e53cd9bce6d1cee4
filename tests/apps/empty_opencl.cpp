// A libOpenCL.so.1 that has none of OpenCL's functions.
extern "C" int gptq_test_opencl_is_empty() { return 1; }
