package postgres

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// endpoint is one of the servers that a connection string names.
type endpoint struct {
	host    string // the name that its certificate must be for, and its entry in a passfile
	address string // the address to connect to in place of host (hostaddr); "" for host itself
	port    uint16
}

// standardSocket returns the folder of the socket that libpq uses if no host is named, as in most packages.
func standardSocket() string {
	const packaged, original = "/var/run/postgresql", "/tmp"
	if _, err := os.Stat(packaged); err == nil {
		return packaged
	}
	return original
}

// leads returns where to connect: a name, an address, or the folder of a socket.
func (e endpoint) leads() string { return cmp.Or(e.address, e.host, standardSocket()) }

func (e endpoint) isSocket() bool {
	return e.address == "" && (e.host == "" || strings.HasPrefix(e.host, "/") || strings.HasPrefix(e.host, "@"))
}

// routes returns the addresses to dial, in the resolver's order.
func (e endpoint) routes(ctx context.Context) (network string, addresses []string, err error) {
	if e.isSocket() {
		return "unix", []string{filepath.Join(e.leads(), fmt.Sprintf(".s.PGSQL.%d", e.port))}, nil
	}
	found, err := e.resolve(ctx)
	for _, f := range found {
		addresses = append(addresses, net.JoinHostPort(f, strconv.Itoa(int(e.port))))
	}
	return "tcp", addresses, err
}

func (e endpoint) resolve(ctx context.Context) ([]string, error) {
	if _, err := netip.ParseAddr(e.leads()); err == nil {
		return []string{e.leads()}, nil
	}
	return net.DefaultResolver.LookupHost(ctx, e.leads())
}

// leadsTo reports whether the endpoint and a name or address have an address in common.
func (e endpoint) leadsTo(ctx context.Context, address string) bool {
	if e.isSocket() {
		return false
	}
	if strings.EqualFold(e.leads(), address) {
		return true
	}
	mine, _ := e.resolve(ctx) // a name that is not known leads nowhere
	others, _ := endpoint{address: address}.resolve(ctx)
	return slices.ContainsFunc(mine, func(one string) bool {
		return slices.ContainsFunc(others, func(other string) bool { return sameAddress(one, other) })
	})
}

func sameAddress(one, other string) bool {
	a, errA := netip.ParseAddr(one)
	b, errB := netip.ParseAddr(other)
	return errA == nil && errB == nil && a.Unmap() == b.Unmap()
}

// listed reads host, hostaddr and port, each of which may be a list (PostgreSQL documentation, "Specifying Multiple
// Hosts").
func (c *connection) listed() ([]endpoint, error) {
	hosts, addresses, ports := list(c.keywords["host"]), list(c.keywords["hostaddr"]), list(c.keywords["port"])
	count := max(1, len(hosts), len(addresses))
	if len(hosts) > 0 && len(addresses) > 0 && len(hosts) != len(addresses) {
		return nil, refuse("hostaddr", "has not as many addresses as host has names")
	}
	if len(ports) > 1 && len(ports) != count {
		return nil, refuse("port", "has not as many ports as there are hosts")
	}
	all := make([]endpoint, count)
	for i := range all {
		e := &all[i]
		if len(hosts) > 0 {
			e.host = hosts[i]
		}
		if len(addresses) > 0 {
			e.address = addresses[i]
		}
		if _, err := netip.ParseAddr(e.address); err != nil && e.address != "" {
			return nil, refuse("hostaddr", "has something that is not an IP address")
		}
		port := ""
		if len(ports) > 0 {
			port = ports[min(i, len(ports)-1)]
		}
		number, err := strconv.ParseUint(strings.Trim(cmp.Or(port, "5432"), blanks), 10, 16)
		if err != nil || number == 0 {
			return nil, refuse("port", "has something that is not a port")
		}
		e.port = uint16(number)
	}
	return all, nil
}

// list splits a value at commas. An empty value has no elements.
func list(value string) []string {
	if value == "" {
		return nil
	}
	return strings.Split(value, ",")
}
