package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// order is what the lab process is asked to do.
type order struct {
	Verb string `json:"verb"` // on, off, cut, heal, detach or down
	Host string `json:"host,omitempty"`
}

// HostState is what the lab process knows about a host.
type HostState struct {
	Name    string  `json:"name"`
	Address string  `json:"address"`
	On      bool    `json:"on"`
	Ready   bool    `json:"ready"`   // its systemd takes orders
	Cut     bool    `json:"cut"`     // no network
	Process Process `json:"process"` // PID 1, as the machine sees it
}

func (l *labProcess) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hosts", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(l.states()) })
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		var o order
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&o)
		if err == nil {
			err = l.obey(o)
		}
		fmt.Fprintln(os.Stderr, time.Now().Format("15:04:05.000"), o.Verb, o.Host, outcome(err))
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	return mux
}

func outcome(err error) string {
	if err != nil {
		return "failed: " + err.Error()
	}
	return "done"
}

func (l *labProcess) states() []HostState {
	var states []HostState
	for _, h := range l.hosts {
		s := HostState{Name: h.name, Address: address(h.index), Cut: h.cut.Load(), Ready: h.ready.Load()}
		if p := h.process.Load(); p != nil {
			s.On, s.Process = true, *p
		}
		states = append(states, s)
	}
	return states
}

func (l *labProcess) obey(o order) error {
	switch o.Verb {
	case "detach":
		l.detach.Do(func() { close(l.alone) })
		return nil
	case "down":
		l.end()
		return nil
	}
	index, err := l.config.index(o.Host)
	if err != nil {
		return err
	}
	h := l.hosts[index-1]
	switch o.Verb {
	case "on":
		return h.on()
	case "off":
		return h.off()
	case "cut":
		return h.setCut(true)
	case "heal":
		return h.setCut(false)
	}
	return fmt.Errorf("no order %q", o.Verb)
}

// controlClient talks to a lab process through its socket.
type controlClient struct{ http http.Client }

func newControlClient(socket string) *controlClient {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &controlClient{http.Client{Transport: &http.Transport{
		// A connection is used once: the client of a lab that ends must keep nothing.
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

func (c *controlClient) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the lab does not answer: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("the lab does not answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(answer)))
	}
	return answer, nil
}

func (c *controlClient) order(ctx context.Context, o order) error {
	_, err := c.do(ctx, http.MethodPost, "/order", o)
	return err
}

func (c *controlClient) hosts(ctx context.Context) ([]HostState, error) {
	answer, err := c.do(ctx, http.MethodGet, "/hosts", nil)
	if err != nil {
		return nil, err
	}
	var states []HostState
	return states, json.Unmarshal(answer, &states)
}
