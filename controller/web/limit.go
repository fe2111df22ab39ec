package web

import (
	"net"
	"sync"
)

// How many connections there may be, of all clients, and of each. A load balancer has one for each check.
const (
	maxConnections = 100
	maxOfOneHost   = 20
)

// limits counts connections of all listeners.
type limits struct {
	mu    sync.Mutex
	all   int
	hosts map[string]int
}

func (l *limits) take(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConnections || l.hosts[host] >= maxOfOneHost {
		return false
	}
	l.all++
	l.hosts[host]++
	return true
}

func (l *limits) leave(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.hosts[host]--; l.hosts[host] == 0 {
		delete(l.hosts, host)
	}
}

// limited closes connections that are too many at once. It does not keep them waiting: then a client with many would keep out all
// others.
type limited struct {
	net.Listener
	limits *limits
}

// Accept implements net.Listener.
func (l limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host := hostOf(conn.RemoteAddr())
		if l.limits.take(host) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { l.limits.leave(host) })}, nil
		}
		_ = conn.Close()
	}
}

func hostOf(address net.Addr) string {
	if tcp, ok := address.(*net.TCPAddr); ok {
		if tcp.IP.To4() == nil { // whoever has one address of a network has them all
			return tcp.IP.Mask(net.CIDRMask(64, 128)).String()
		}
		return tcp.IP.String()
	}
	return "" // of a unix socket
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
