package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// statusPath is where the status is on the unix socket; the protocol is HTTP.
const statusPath = "/status"

const (
	// socketMode lets the daemon's group read the status.
	socketMode = 0o660
	// ioTimeout bounds every exchange over the socket.
	ioTimeout = 5 * time.Second
	// maxStatusBytes bounds what a client reads.
	maxStatusBytes = 16 << 20
)

// StatusServer answers with the last published status on a unix socket.
type StatusServer struct {
	mu     sync.Mutex
	status *Status // nil before the first look
	server *http.Server
}

// Publish takes the newest status.
func (s *StatusServer) Publish(status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = &status
}

// Listen begins to answer on a socket. A socket that a killed daemon left is replaced; one that answers is an error.
func (s *StatusServer) Listen(ctx context.Context, path string) error {
	dialer := net.Dialer{Timeout: ioTimeout}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return fmt.Errorf("another pgrex answers at %s: stop it first, or use another --socket", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove the socket a killed pgrex left: %w", err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen for 'pgrex status': %w; make its folder writable for this user, or use --socket", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return errors.Join(fmt.Errorf("set the mode of %s: %w", path, err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+statusPath, s.answer)
	s.server = &http.Server{Handler: mux, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout}
	go func() { _ = s.server.Serve(listener) }() // ends with ErrServerClosed
	return nil
}

// Close stops answering and removes the socket.
func (s *StatusServer) Close() error {
	if s.server == nil {
		return nil
	}
	return s.server.Close()
}

func (s *StatusServer) answer(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	if status == nil {
		http.Error(w, "it has only just started", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(status) // the client is gone; there is nobody to tell
}

// noAnswer is the error if nobody could be asked.
func noAnswer(path string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, fs.ErrPermission) { // it may well run
		return fmt.Errorf("this user may not ask the pgrex at %s: %w; type it as root, or with the group haclient", path, err)
	}
	return fmt.Errorf("no pgrex answers at %s: %w; start it with 'systemctl start pgrex', or name its --socket, or with several "+
		"databases its --instance", path, err)
}

// FetchStatus asks the daemon behind a socket.
func FetchStatus(ctx context.Context, path string) (Status, error) {
	client := http.Client{
		Timeout: ioTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pgrex"+statusPath, nil)
	if err != nil {
		return Status{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return Status{}, noAnswer(path, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return Status{}, fmt.Errorf("the pgrex at %s has nothing to say yet (%s): ask again in a moment", path, response.Status)
	}
	var s Status
	if err := json.NewDecoder(io.LimitReader(response.Body, maxStatusBytes)).Decode(&s); err != nil {
		return Status{}, fmt.Errorf("the answer at %s is no status: %w", path, err)
	}
	return s, nil
}
