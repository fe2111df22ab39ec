package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// askEvery is how often another member is asked.
const askEvery = 10 * time.Second

// Answer is what another member's server said when it was last asked, or why it did not.
type Answer struct {
	At      time.Time
	Address string
	Said    *model.Upstream
	Problem string
}

// members asks the servers of the other members, one goroutine for each question, so that the loop never waits for one.
type members struct {
	ring    func() (map[string]string, error)
	mu      sync.Mutex
	answers map[string]Answer
	asking  map[string]bool
	running sync.WaitGroup
}

func newMembers() *members {
	return &members{
		ring:    func() (map[string]string, error) { return cib.RingAddresses(cib.CorosyncConf) },
		answers: map[string]Answer{}, asking: map[string]bool{},
	}
}

// refresh asks those that are due. Who runs no standby is not asked, and on a standby the primary has been already.
func (m *members) refresh(ctx context.Context, who reconcile.Who, server Server) {
	if who.Standing == model.InTransition || server == nil {
		return
	}
	names := who.SlotNames()
	asker, err := server.Asker()
	if err != nil {
		return // there is nobody to ask as: a standby's upstream is not asked either, and says why
	}
	ring, ringErr := m.ring()
	for _, host := range who.Policy.Members {
		switch address := addressOf(who.Instance.Senders, ring, host); {
		case who.Is(host):
		case !who.NodeOf(host).Online || who.RoleOf(host) != model.RoleUnpromoted || who.WithoutServer(host):
			m.set(host, Answer{})
		case address == "" && ringErr != nil:
			m.set(host, Answer{Problem: "its address is not known: " + ringErr.Error()})
		case address == "":
			m.set(host, Answer{Problem: "its address is not known: " + cib.CorosyncConf + " does not name it"})
		default:
			m.ask(ctx, host, address, names, asker)
		}
	}
}

// addressOf is where the primary sees a host, or else its address on corosync's ring.
func addressOf(senders []model.WALSender, ring map[string]string, host string) string {
	return cmp.Or(streamsFrom(senders, host), ring[host])
}

// streamsFrom is the address from which a host streams, as the primary sees it; "" if it does not stream, or streams
// over the unix socket.
func streamsFrom(senders []model.WALSender, host string) string {
	for _, s := range senders {
		if s.Replicates() && s.Address != "" && s.ApplicationName == reconcile.ApplicationName(host) {
			return s.Address
		}
	}
	return ""
}

// standbysOf returns the addresses from which the members stream. Only the primary sees them. Every other host keeps
// the addresses from before, and the primary does so for a member that is away.
func standbysOf(who reconcile.Who, before map[string]string) map[string]string {
	if who.Standing != model.Primary {
		return before
	}
	now := map[string]string{}
	for _, member := range who.Others {
		if address := cmp.Or(streamsFrom(who.Instance.Senders, member), before[member]); address != "" {
			now[member] = address
		}
	}
	return now
}

func (m *members) ask(ctx context.Context, host, address string, slots []string, asker postgres.Asker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.answers[host]
	if m.asking[host] || last.Address == address && time.Since(last.At) < askEvery-time.Second {
		return
	}
	m.asking[host] = true
	m.running.Go(func() {
		answer := Answer{Address: address}
		said, err := asker(ctx, address, slots)
		switch {
		case err != nil:
			answer.Problem = err.Error()
		case !said.InRecovery:
			answer.Problem = fmt.Sprintf("the server at %s is no standby: it may be another host's", address)
		default:
			answer.Said = &said
		}
		answer.At = time.Now()
		m.set(host, answer)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.asking, host)
	})
}

func (m *members) set(host string, a Answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[host] = a
}

// all are the last answers, by host.
func (m *members) all() map[string]Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.answers)
}
