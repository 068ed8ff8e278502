package journal

import "io"

// FS is what the journal needs of a file system. Names are paths. The methods
// are called from several goroutines.
type FS interface {
	// MkdirAll makes a folder with its parents; one that exists is no error.
	MkdirAll(dir string) error
	// List returns the names, without folder, of the files in dir.
	List(dir string) ([]string, error)
	// Create makes a file, or empties it, for reading and writing.
	Create(name string) (File, error)
	// Open opens a file that exists, for reading and writing; fs.ErrNotExist
	// if it does not.
	Open(name string) (File, error)
	// OpenRead opens a file that exists for reading only.
	OpenRead(name string) (File, error)
	// Rename replaces to by from, atomically.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// SyncDir makes what Create, Rename and Remove did in dir durable.
	SyncDir(dir string) error
	// Lock takes a lock that ends with the process; ErrLocked if another has
	// it.
	Lock(name string) (io.Closer, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate sets the length; what is added reads as zeros.
	Truncate(size int64) error
	// Allocate grows the file to size and reserves the blocks, so that
	// writing below size needs no space; what is added reads as zeros.
	// syscall.ENOSPC when the disk is full.
	Allocate(size int64) error
	// Sync makes the data, and the metadata needed to read it, durable. After
	// an error nothing is known of what was written since the last success.
	Sync() error
}
