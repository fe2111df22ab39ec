package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/metrics"
)

// Limits of one exchange. Prometheus asks every 15 seconds or so over one connection, a load balancer every few seconds.
const (
	headerTimeout  = 3 * time.Second
	readTimeout    = 5 * time.Second
	writeTimeout   = 10 * time.Second
	idleTimeout    = 20 * time.Second
	endTimeout     = 2 * time.Second
	maxHeaderBytes = 4 << 10
	maxStreams     = 8 // of HTTP/2, over one connection
)

// The daemon is asked at most this often, whoever asks here, and has so long to answer.
const (
	askEvery   = 250 * time.Millisecond
	askTimeout = 2 * time.Second
)

const methods = "GET, HEAD, OPTIONS"

// Options make a Server.
type Options struct {
	Socket   string // of the daemon
	Database string // the instance where the host has several databases, else ""
	Config   string // a file for TLS and passwords as exporter-toolkit takes it; "" for neither
	Log      *slog.Logger
}

// Server answers over HTTP with what the daemon has said last.
type Server struct {
	Options
	limits limits
	ask    func(context.Context) (controller.Status, error)

	mu     sync.Mutex
	asked  time.Time
	status *controller.Status // nil if the daemon did not answer
	known  *controller.Status // the last one; nil before the first
}

// New makes a server. It reads the file for TLS and passwords, and fails if that is wrong.
func New(o Options) (*Server, error) {
	if err := toolkit.Validate(o.Config); err != nil {
		return nil, fmt.Errorf("read web-config %s: %w", o.Config, err)
	}
	return &Server{
		Options: o, limits: limits{hosts: map[string]int{}},
		ask: func(ctx context.Context) (controller.Status, error) { return controller.FetchStatus(ctx, o.Socket) },
	}, nil
}

// Serve answers on all listeners until ctx ends.
func (s *Server) Serve(ctx context.Context, listeners []net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		server := s.server() // one for each: exporter-toolkit changes it
		group.Go(func() error {
			err := toolkit.Serve(limited{l, &s.limits}, server, &toolkit.FlagConfig{WebConfigFile: &s.Config}, s.Log)
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("answer at %s: %w", l.Addr(), err)
		})
		group.Go(func() error {
			<-ctx.Done()
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
			defer cancel()
			if server.Shutdown(ending) != nil {
				_ = server.Close() // who is that slow is not waited for
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *Server) server() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		DisableGeneralOptionsHandler: true,                       // "OPTIONS *" would succeed whatever is so
		ErrorLog:                     log.New(io.Discard, "", 0), // what clients do wrong would fill the journal
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	path, _ := strings.CutPrefix(r.URL.Path, "/")
	check := Check(path)
	switch {
	case path != "metrics" && !slices.Contains(checks, check):
		answer(w, r, http.StatusNotFound, "there is nothing here: see docs/monitoring.md")
	case !slices.Contains(strings.Split(methods, ", "), r.Method):
		w.Header().Set("Allow", methods)
		answer(w, r, http.StatusMethodNotAllowed, "only "+methods)
	case path == "metrics":
		status, _ := s.last(r.Context())
		s.metrics(w, r, status)
	default:
		_, known := s.last(r.Context()) // while the daemon restarts, what it knew is true as long as it is young
		code, why := Decide(check, r.URL.RawQuery, known, time.Now())
		answer(w, r, code, why)
	}
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request, status *controller.Status) {
	text, err := metrics.Text(status, s.Database)
	if err != nil {
		answer(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", metrics.ContentType)
	if r.Method == http.MethodGet {
		_, _ = w.Write(text) // the client is gone; there is nobody to tell
	}
}

// answer writes a line of text; to HEAD and OPTIONS the status code alone.
func answer(w http.ResponseWriter, r *http.Request, code int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	if r.Method != http.MethodHead && r.Method != http.MethodOptions {
		_, _ = fmt.Fprintln(w, line) //nolint:gosec // no browser takes it for HTML
	}
}

// last returns what the daemon says, nil if it does not answer, and what it has said last. Whoever asks meanwhile waits for
// the same answer.
func (s *Server) last(ctx context.Context) (status, known *controller.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked.IsZero() && time.Since(s.asked) < askEvery {
		return s.status, s.known
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout) // a client that is gone is no daemon that does not answer
	defer cancel()
	answer, err := s.ask(ctx)
	s.asked, s.status = time.Now(), nil
	if err == nil {
		s.status, s.known = &answer, &answer
	}
	return s.status, s.known
}
