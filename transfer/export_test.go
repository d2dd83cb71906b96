package transfer

// RefuseDirect makes a file one of a file system that takes no direct I/O.
func RefuseDirect(f *File) { f.refused.Store(true) }
