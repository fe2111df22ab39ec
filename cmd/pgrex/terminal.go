package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal tells a terminal from a pipe, a file, and /dev/null.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
