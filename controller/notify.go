package controller

import (
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/pgrex/pgrex/model"
)

// Systemd tells systemd over NOTIFY_SOCKET. Without one, every call does nothing.
type Systemd struct{ last string }

var _ Notifier = (*Systemd)(nil)

// Ready implements Notifier.
func (s *Systemd) Ready() { s.send(daemon.SdNotifyReady) }

// Alive implements Notifier.
func (s *Systemd) Alive() { s.send(daemon.SdNotifyWatchdog) }

// Stopping implements Notifier.
func (s *Systemd) Stopping() { s.send(daemon.SdNotifyStopping) }

// Status implements Notifier. A line is sent when it differs from the last. A line break in it, as in a server's text,
// would begin another message to systemd, such as MAINPID=.
func (s *Systemd) Status(line string) {
	line = model.Printable(line)
	if line != s.last {
		s.last = line
		s.send("STATUS=" + line)
	}
}

// send drops errors: there is nobody else to tell, and the watchdog acts on silence.
func (s *Systemd) send(state string) { _, _ = daemon.SdNotify(false, state) }
