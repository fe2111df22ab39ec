package postgres_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// proxy stands between the package and a real server, so that something can happen exactly before a statement gets
// there, or its answer can get lost.
type proxy struct {
	before  []byte // a part of the statement that is waited for
	pause   func() // called when it comes, before the server sees it
	swallow bool   // let the server have it, but cut the connection instead of giving the answer
	once    sync.Once
}

// through is the package's view of a server through the proxy.
func (p *proxy) through(t *testing.T, server *pgserver.Server) *postgres.Server {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgproxy") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf(".s.PGSQL.%d", server.Port)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.serve(t, client, filepath.Join(server.Dir, name)) })
		}
	})
	a := postgres.NewServer(postgres.Config{SocketDir: dir, Port: server.Port, User: "postgres", Database: "postgres"})
	t.Cleanup(func() {
		a.Close()
		_ = listener.Close()
		all.Wait()
		_ = os.RemoveAll(dir)
	})
	return a
}

func (p *proxy) serve(t *testing.T, client net.Conn, socket string) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(t.Context(), "unix", socket)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var mute atomic.Bool
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		p.answer(client, server, &mute)
	}()
	buffer := make([]byte, 1<<16) // more than any message of ours
	for {
		n, err := client.Read(buffer)
		if err != nil {
			break
		}
		if p.before != nil && bytes.Contains(buffer[:n], p.before) {
			p.once.Do(func() {
				if p.pause != nil {
					p.pause()
				}
				mute.Store(p.swallow)
			})
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			break
		}
	}
	_ = server.Close()
	<-answered
}

// answer hands on what the server says. An answer that is to get lost is waited for all the same: it shows that the
// statement is done, and that nobody can cancel it any more.
func (p *proxy) answer(client, server net.Conn, mute *atomic.Bool) {
	defer func() { _ = client.Close() }()
	buffer := make([]byte, 1<<16)
	for {
		n, err := server.Read(buffer)
		if err != nil || mute.Load() {
			return
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
