// The unit that headers.h is compiled for.
