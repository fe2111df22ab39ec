package testenv

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// ethernet is the lab's network: a bridge in a network namespace that nothing but this process's descriptor holds.
type ethernet struct {
	namespace netns.NsHandle
	links     *netlink.Handle
	bridge    int
}

func newEthernet() (*ethernet, error) {
	// The namespace is made by the thread that enters it, so nothing else may run there meanwhile.
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the machine's network namespace: %w", err)
	}
	defer func() { _ = home.Close() }()
	namespace, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := netns.Set(home); err != nil {
		return nil, fmt.Errorf("return to the machine's network namespace: %w", err) // and keep the thread locked: it is lost
	}
	runtime.UnlockOSThread()
	links, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return nil, fmt.Errorf("netlink in the lab's network namespace: %w", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := links.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("make the bridge: %w", err)
	}
	if err := links.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("bring up the bridge: %w", err)
	}
	return &ethernet{namespace: namespace, links: links, bridge: bridge.Index}, nil
}

func portName(index int) string { return fmt.Sprintf("port%d", index) }

// plug gives the host whose PID 1 is pid its eth0, and puts the other end into the bridge.
func (e *ethernet) plug(index, pid int, cut bool) error {
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: portName(index), MasterIndex: e.bridge},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsPid(pid),
		// The same at every power-on, so that the others' ARP caches stay right.
		PeerHardwareAddr: net.HardwareAddr{0x02, 0x70, 0x67, 0x00, 0x00, byte(index)},
	}
	if err := e.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the link to the host: %w", err)
	}
	if cut {
		return nil
	}
	return e.connect(index)
}

// unplug removes the host's link. The kernel also does so when the host's namespace ends, but later.
func (e *ethernet) unplug(index int) error {
	link, err := e.links.LinkByName(portName(index))
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.links.LinkDel(link); err != nil {
		// The kernel was faster.
		if _, gone := e.links.LinkByName(portName(index)); errors.As(gone, new(netlink.LinkNotFoundError)) {
			return nil
		}
		return fmt.Errorf("remove the link to the host: %w", err)
	}
	return nil
}

func (e *ethernet) connect(index int) error {
	link, err := e.links.LinkByName(portName(index))
	if err != nil {
		return fmt.Errorf("the host's port: %w", err)
	}
	return e.links.LinkSetUp(link)
}

func (e *ethernet) disconnect(index int) error {
	link, err := e.links.LinkByName(portName(index))
	if err != nil {
		return fmt.Errorf("the host's port: %w", err)
	}
	return e.links.LinkSetDown(link)
}
