package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/metrics"
)

// serve answers with what ask says, and returns where. At the end nothing is left of it.
func serve(t *testing.T, config string, ask func(context.Context) (controller.Status, error)) (address string) {
	t.Helper()
	s, err := New(Options{Config: config, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.ask = ask
	var listeners []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	leaks := goleak.IgnoreCurrent()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listeners) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		end()
		if err := <-ended; err != nil {
			t.Errorf("it ends with %v", err)
		}
		goleak.VerifyNone(t, leaks)
	})
	return listeners[1].Addr().String()
}

func says(s *controller.Status) func(context.Context) (controller.Status, error) {
	return func(context.Context) (controller.Status, error) {
		said := *s
		said.Looked, said.Read = time.Now(), time.Now()
		return said, nil
	}
}

func request(t *testing.T, client *http.Client, method, url string) (code int, body string, header http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text), response.Header
}

// TestAnswers: what each path answers to each method.
func TestAnswers(t *testing.T) {
	status := standby()
	address := serve(t, "", says(status))
	for _, test := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/replica", 200, "replica\n"},
		{"HEAD", "/replica", 200, ""},
		{"OPTIONS", "/replica", 200, ""},
		{"GET", "/replica?lag=16kB", 503, "1.0 MiB behind\n"},
		{"HEAD", "/replica?lag=16kB", 503, ""},
		{"GET", "/replica?lag=16", 503, "1.0 MiB behind\n"},
		{"OPTIONS", "/replica?lag=x", 400, ""},
		{"OPTIONS", "/primary", 503, ""},
		{"GET", "/primary", 503, "this host is a standby\n"},
		{"POST", "/replica", 405, "only GET, HEAD, OPTIONS\n"},
		{"DELETE", "/metrics", 405, "only GET, HEAD, OPTIONS\n"},
		{"GET", "/", 404, "there is nothing here: see docs/monitoring.md\n"},
		{"GET", "/replica/", 404, "there is nothing here: see docs/monitoring.md\n"},
		{"GET", "//replica", 404, "there is nothing here: see docs/monitoring.md\n"},
		{"GET", "/status", 404, "there is nothing here: see docs/monitoring.md\n"},
		{"HEAD", "/metrics", 200, ""},
		{"OPTIONS", "/metrics", 200, ""},
	} {
		code, body, header := request(t, http.DefaultClient, test.method, "http://"+address+test.path)
		if code != test.code || body != test.body || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s is %d %q %v, not %d %q", test.method, test.path, code, body, header, test.code, test.body)
		}
	}
	code, body, header := request(t, http.DefaultClient, "GET", "http://"+address+"/metrics")
	if code != 200 || header.Get("Content-Type") != metrics.ContentType || !strings.Contains(body, `pgrex_member_lag_bytes{member="pm02"} 1.048576e+06`) {
		t.Errorf("the metrics are %d %v\n%s", code, header, body)
	}
}

// TestRaw: what no client library would send.
func TestRaw(t *testing.T) {
	address := serve(t, "", says(primary()))
	for request, want := range map[string]string{
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n":                                             "HTTP/1.1 404",
		"OPTIONS /primary HTTP/1.0\r\n\r\n":                                                 "HTTP/1.0 200",
		"GET /primary?%zz HTTP/1.1\r\nHost: x\r\n\r\n":                                      "HTTP/1.1 400",
		"GET /primary HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 9<<10) + "\r\n\r\n": "HTTP/1.1 431",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Errorf("%.40q is answered %q, %v, not %s", request, line, err, want)
		}
		_ = conn.Close()
	}
}

// TestNoDaemon: without one every check fails, and the metrics say so.
func TestNoDaemon(t *testing.T) {
	address := serve(t, "", func(context.Context) (controller.Status, error) { return *primary(), errors.New("nobody") })
	for _, check := range checks {
		if code, body, _ := request(t, http.DefaultClient, "GET", "http://"+address+"/"+string(check)); code != 503 || body != "no daemon answers\n" {
			t.Errorf("/%s is %d %q", check, code, body)
		}
	}
	if code, body, _ := request(t, http.DefaultClient, "GET", "http://"+address+"/metrics"); code != 200 || !strings.HasSuffix(body, "\npgrex_up 0\n") {
		t.Errorf("the metrics are %d %q", code, body)
	}
}

// TestAsksSeldom: however many ask here, the daemon is asked a few times a second; one that hangs keeps nobody waiting for long.
func TestAsksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := &Server{ask: func(context.Context) (controller.Status, error) { asked++; return *primary(), nil }}
		for range 1000 {
			if status, _ := s.last(t.Context()); status == nil {
				t.Fatal("no answer")
			}
			time.Sleep(time.Millisecond)
		}
		if asked != 4 {
			t.Errorf("the daemon was asked %d times in a second", asked)
		}
		time.Sleep(time.Second)
		s.ask = func(ctx context.Context) (controller.Status, error) {
			<-ctx.Done()
			return *primary(), ctx.Err()
		}
		began := time.Now()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if status, known := s.last(gone); status != nil || known == nil || time.Since(began) != askTimeout {
			t.Errorf("a daemon that hangs is waited for %s", time.Since(began))
		}
		if status, known := s.last(t.Context()); status != nil || known == nil || time.Since(began) != askTimeout {
			t.Errorf("who comes right after that waits as well: %s", time.Since(began))
		}
	})
}

// TestTooMany: a client with too many connections is refused further ones, and gets others once it has closed some.
func TestTooMany(t *testing.T) {
	address := serve(t, "", says(primary()))
	dial := func() (net.Conn, error) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return conn, err
		}
		_, err = bufio.NewReader(conn).ReadString('\n')
		return conn, err
	}
	var open []net.Conn
	for i := range maxOfOneHost {
		conn, err := dial()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, conn)
	}
	if conn, err := dial(); err == nil {
		t.Error("one more than allowed is answered")
		_ = conn.Close()
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	deadline := time.Now().Add(time.Minute)
	for {
		conn, err := dial()
		_ = conn.Close()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the closed connections still count")
		}
	}
}

// TestLimits: no host takes what is there for all.
func TestLimits(t *testing.T) {
	l := limits{hosts: map[string]int{}}
	taken := 0
	for host := range 10 {
		for range maxOfOneHost {
			if l.take(fmt.Sprint(host)) {
				taken++
			}
		}
	}
	if taken != maxConnections || l.take("another") {
		t.Errorf("%d connections were taken", taken)
	}
	l.leave("0")
	if !l.take("another") || l.take("yet another") {
		t.Error("one that is closed makes room for one other")
	}
	l.leave("another")
	for host := range 10 {
		for range l.hosts[fmt.Sprint(host)] {
			l.leave(fmt.Sprint(host))
		}
	}
	if l.all != 0 || len(l.hosts) != 0 {
		t.Errorf("all are closed, but %d count, of %v", l.all, l.hosts)
	}
}

// TestSlow: who does not say what he wants is let go.
func TestSlow(t *testing.T) {
	s := (&Server{}).server()
	for name, limit := range map[string]time.Duration{"header": s.ReadHeaderTimeout, "request": s.ReadTimeout, "answer": s.WriteTimeout, "idle": s.IdleTimeout} {
		if limit <= 0 || limit > time.Minute {
			t.Errorf("the %s may take %s", name, limit)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		client, end := net.Pipe()
		listener := &one{conn: end, closed: make(chan struct{})}
		server := (&Server{limits: limits{hosts: map[string]int{}}}).server()
		go func() { _ = server.Serve(listener) }()
		began := time.Now()
		go func() { _, _ = io.WriteString(client, "GET /primary HTTP/1.1\r\nHost: x\r\nX: ") }()
		if _, err := io.ReadAll(client); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < headerTimeout || took > headerTimeout+time.Second {
			t.Errorf("it was let go after %s", took)
		}
		_ = client.Close()
		_ = server.Close()
	})
}

// one is a listener of a single connection.
type one struct {
	conn   net.Conn
	given  atomic.Bool
	closed chan struct{}
}

func (o *one) Accept() (net.Conn, error) {
	if !o.given.Swap(true) {
		return o.conn, nil
	}
	<-o.closed
	return nil, net.ErrClosed
}
func (o *one) Addr() net.Addr { return o.conn.LocalAddr() }
func (o *one) Close() error   { close(o.closed); return nil }

// TestConfig: TLS and passwords as exporter-toolkit has them; a wrong file is an error at once.
func TestConfig(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate, key := selfSigned(t)
	file("cert.pem", certificate)
	file("key.pem", key)
	// The password is "secret".
	config := file("web.yml", "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nbasic_auth_users:\n"+
		"  check: "+hashed(t, "secret")+"\n")
	address := serve(t, config, says(primary()))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	for url, want := range map[string]int{
		"https://" + address + "/primary":              401,
		"https://check:wrong@" + address + "/primary":  401,
		"https://check:secret@" + address + "/primary": 200,
		"https://check:secret@" + address + "/metrics": 200,
		"http://check:secret@" + address + "/primary":  400, // no TLS
	} {
		if code, body, _ := request(t, client, "GET", url); code != want {
			t.Errorf("%s is %d %q, not %d", url, code, body, want)
		}
	}
	for name, text := range map[string]string{"unknown.yml": "tls: {}\n", "nocert.yml": "tls_server_config: {cert_file: no.pem, key_file: no.pem}\n"} {
		path := file(name, text)
		if _, err := New(Options{Config: path}); err == nil || !strings.Contains(err.Error(), "read web-config "+path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{Config: filepath.Join(folder, "missing.yml")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
}
