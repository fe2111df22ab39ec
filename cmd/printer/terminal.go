package printer

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var keepWriting atomic.Bool

// KeepWriting makes every later print reach the terminal, whoever has it. If SIGTTOU is caught, a write from the
// background to a terminal with "stty tostop" would be tried again for ever (termios(3), TOSTOP).
func KeepWriting() { keepWriting.Store(true) }

// writeTo writes a text. After KeepWriting its thread blocks SIGTTOU meanwhile. Other threads do not, and neither do
// the programs that they start.
func writeTo(w io.Writer, text string) (err error) {
	if !keepWriting.Load() {
		_, err = io.WriteString(w, text)
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var blocked, before unix.Sigset_t
	blocked.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, &before); err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
}
