package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostSpec is what PID 1 of a host must know.
type hostSpec struct {
	Lab   string // the lab's folder
	Name  string
	Index int
}

// hostRequest is one order of the lab process to a host's PID 1; one field is set. Each is answered with a hostReply.
type hostRequest struct {
	Setup   *hostSpec `json:",omitempty"` // first: mounts, name, network
	Cluster bool      `json:",omitempty"` // start corosync and Pacemaker
	Enable  *unit     `json:",omitempty"`
	Disable string    `json:",omitempty"`
}

type hostReply struct{ Error string }

// hostMain is PID 1 of a host. It ends when the lab process does, and with it everything in the host.
func hostMain() error {
	const fd = 3
	unix.CloseOnExec(fd)
	control := os.NewFile(fd, "control")
	init := newInit()
	requests, replies := json.NewDecoder(control), json.NewEncoder(control)
	for {
		var request hostRequest
		if err := requests.Decode(&request); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var reply hostReply
		if err := init.do(request); err != nil {
			reply.Error = err.Error()
		}
		if err := replies.Encode(reply); err != nil {
			return err
		}
	}
}

func (i *initProcess) do(r hostRequest) error {
	switch {
	case r.Setup != nil:
		return r.Setup.setup()
	case r.Cluster:
		return i.startCluster()
	case r.Enable != nil:
		return i.enable(*r.Enable)
	default:
		return i.disable(r.Disable)
	}
}

func (h hostSpec) setup() error {
	if err := unix.Sethostname([]byte(h.Name)); err != nil {
		return fmt.Errorf("set the host name %q: %w", h.Name, err)
	}
	if err := h.mountAll(); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := makeRunDirs(); err != nil {
		return err
	}
	return h.network()
}

// makeRunDirs makes what the packages' tmpfiles.d would make at boot, and what the agent and crmsh expect.
func makeRunDirs() error {
	for _, d := range []struct {
		path, owner, group string
		mode               os.FileMode
	}{
		{"/run/lock", "root", "root", 0o755},
		{"/run/resource-agents", "root", "root", 0o755},
		{"/run/crm", "hacluster", "haclient", 0o750},
		{socketDir, dba, dba, 0o2775},
	} {
		if err := makeDir(d.path, d.owner, d.group, d.mode); err != nil {
			return err
		}
	}
	return nil
}

// network brings up the link that the lab process has put into this namespace.
func (h hostSpec) network() error {
	// No IPv6: its address checks would only delay the boot.
	for _, which := range []string{"all", "default"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0o600)
	}
	for _, l := range []struct{ name, address string }{{"lo", "127.0.0.1/8"}, {"eth0", address(h.Index) + "/24"}} {
		link, err := netlink.LinkByName(l.name)
		if err != nil {
			return fmt.Errorf("link %s: %w", l.name, err)
		}
		ip, err := netlink.ParseAddr(l.address)
		if err != nil {
			return err
		}
		// lo gets its address by itself once it is up, on some kernels before.
		if err := netlink.AddrAdd(link, ip); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("give %s the address %s: %w", l.name, l.address, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up %s: %w", l.name, err)
		}
	}
	return nil
}

// daemonEnv is the environment of corosync and Pacemaker. Logs go to files only: a syslog would be the machine's.
var daemonEnv = append([]string{
	"PCMK_logfile=/var/log/pacemaker/pacemaker.log",
	"PCMK_logfacility=none",
	"HOME=/root",
}, baseEnv...)

var baseEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"LANG=C.UTF-8", "LC_ALL=C.UTF-8",
}

// startCluster starts corosync, and Pacemaker once corosync takes requests. Pacemaker is started again when it fails, as
// its unit does; corosync is not, as its unit does not.
func (i *initProcess) startCluster() error {
	corosync := program{name: "corosync", argv: []string{"/usr/sbin/corosync", "-f"}, env: daemonEnv}
	pid, _, err := i.start(corosync)
	if err != nil {
		return err
	}
	// corosync asks for realtime scheduling on a real host; several labs share few cores, and a late token means fencing.
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, -15)
	deadline := time.Now().Add(20 * time.Second)
	for !abstractSocket("cmap") {
		if time.Now().After(deadline) {
			return errors.New("corosync does not take requests after 20 s; see its log")
		}
		time.Sleep(10 * time.Millisecond)
	}
	pacemaker := program{name: "pacemakerd", argv: []string{"/usr/sbin/pacemakerd"}, env: daemonEnv}
	_, ended, err := i.start(pacemaker)
	if err != nil {
		return err
	}
	go func() {
		const stayDown = 100 // pacemakerd's own status for "do not start me again"
		for err == nil {
			status := <-ended
			if status.Exited() && (status.ExitStatus() == 0 || status.ExitStatus() == stayDown) {
				return
			}
			time.Sleep(time.Second)
			_, ended, err = i.start(pacemaker)
		}
		i.logf("%v", err)
	}()
	return nil
}

// abstractSocket tells whether somebody in this network namespace listens on libqb's socket of a name.
func abstractSocket(name string) bool {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		// libqb's names are filled up with zeros, which the kernel shows as more @.
		if f := strings.Fields(line); len(f) == 8 && strings.TrimRight(f[7], "@") == "@"+name {
			return true
		}
	}
	return false
}

// hostChannel is the lab process's end of the line to a PID 1.
type hostChannel struct {
	conn     net.Conn
	requests *json.Encoder
	replies  *json.Decoder
}

// hostLine makes the two ends of the line.
func hostLine() (*hostChannel, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "control")
	conn, err := net.FileConn(near)
	_ = near.Close()
	if err != nil {
		_ = far.Close()
		return nil, nil, err
	}
	return &hostChannel{conn, json.NewEncoder(conn), json.NewDecoder(conn)}, far, nil
}

// do gives an order and waits for its answer.
func (c *hostChannel) do(r hostRequest) error {
	if err := c.conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return err
	}
	var reply hostReply
	if err := c.requests.Encode(r); err != nil {
		return fmt.Errorf("the host does not listen: %w", err)
	}
	if err := c.replies.Decode(&reply); err != nil {
		return fmt.Errorf("the host does not answer: %w", err)
	}
	if reply.Error != "" {
		return errors.New(reply.Error)
	}
	return nil
}

func exitText(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "was killed by " + s.Signal().String()
	}
	return "exited with " + strconv.Itoa(s.ExitStatus())
}
