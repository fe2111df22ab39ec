package cib

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pgrex/pgrex/model"
)

// DefaultTimeout is how long each of Pacemaker's tools may take. They take 30 ms on a small cluster.
const DefaultTimeout = 10 * time.Second

// maxAge is how long crm_mon's word is good while the CIB stays the same: what a CIB means depends on the time, too
// (failure-timeout, rules).
const maxAge = time.Minute

// maxReport limits what crm_mon may print, in bytes. Of a large CIB it prints less than that has.
const maxReport = 2 * MaxSize

// choosing is the first release whose crm_mon can be told what to leave out: the histories are most of what it prints.
const choosing = "2.0.4"

// Client asks Pacemaker for the CIB by running cibadmin, and for what it means by running crm_mon. The zero value is
// ready to use, also by several goroutines.
//
// cibadmin sees our environment: with CIB_file=FILE set it reads that file and needs no cluster.
type Client struct {
	// CIBAdmin, CrmMon, CrmNode and CrmSimulate are the tools' paths; found on PATH when empty.
	CIBAdmin, CrmMon, CrmNode, CrmSimulate string
	// Timeout is how long one of them may take; DefaultTimeout when zero. An earlier deadline of the context goes
	// before.
	Timeout time.Duration

	mayConnect func() bool // mayConnect, but for tests

	mu    sync.Mutex
	last  look
	tools *Tools // nil until known
	mon   os.FileInfo
}

// look is what a CIB was found to mean.
type look struct {
	sum     [sha256.Size]byte
	at      time.Time
	cluster model.Cluster
}

// Read asks for the CIB and for what it means. crm_mon is not asked again about the same bytes within a minute.
//
// Its errors are those of this package (see ErrClusterDown and its neighbours), or the context's own when that was
// cancelled.
func (c *Client) Read(ctx context.Context) (model.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.timeout())
	defer cancel()
	data, err := c.query(ctx)
	if err != nil {
		return model.Cluster{}, err
	}
	sum := sha256.Sum256(data)
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if last.sum == sum && time.Since(last.at) < maxAge {
		return last.cluster, nil
	}
	at := time.Now()
	cluster, err := c.Interpret(ctx, data)
	if err != nil {
		return model.Cluster{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = look{sum, at, cluster}
	return cluster, nil
}

// Interpret understands a CIB, as `cibadmin --query` prints it: crm_mon says what it means, over these very bytes. The
// cluster has its nodes in order of name and its clones in order of id, then primitive. Its errors are those of Read.
func (c *Client) Interpret(ctx context.Context, data []byte) (model.Cluster, error) {
	document, err := parse(data)
	if err != nil {
		return model.Cluster{}, err
	}
	tools, err := c.Tools(ctx)
	if err != nil {
		return model.Cluster{}, err
	}
	if err := tools.know(document); err != nil {
		c.forgetTools() // they may have been asked in the middle of an upgrade
		return model.Cluster{}, err
	}
	report, err := c.report(ctx, data, tools)
	if err != nil {
		return model.Cluster{}, fmt.Errorf("%w%s", err, tools.about(document))
	}
	return document.cluster(report)
}

// report runs crm_mon over a CIB.
func (c *Client) report(ctx context.Context, data []byte, tools Tools) (report, error) {
	args := []string{"--one-shot", "--inactive", "--output-as=xml"}
	if !newer(choosing, tools.release()) {
		args = append(args, "--exclude=all", "--include=dc,options,nodes,resources")
	}
	out, err := c.askAbout(ctx, data, maxReport, c.crmMon(), args...)
	if err != nil {
		return report{}, err
	}
	return readReport(out)
}

func (c *Client) query(ctx context.Context) ([]byte, error) {
	data, err := c.ask(ctx, MaxSize, c.cibAdmin(), "--query")
	if variable := NoClusterVariable(); variable != "" && errors.Is(err, ErrFailed) {
		return nil, fmt.Errorf("%w; see whether %s is a CIB that this user can read", err, variable)
	}
	return data, err
}

// NoClusterVariable is the environment variable that leads Pacemaker's tools to a file instead of the cluster, with its
// value; "" when there is none.
func NoClusterVariable() string {
	for _, name := range []string{"CIB_file", "CIB_shadow"} {
		if value := os.Getenv(name); value != "" {
			return name + "=" + value
		}
	}
	return ""
}

// LocalName asks Pacemaker what it calls this host. It needs a running cluster: with CIB_file the answer would be about
// another one. Its errors are those of Read.
func (c *Client) LocalName(ctx context.Context) (string, error) {
	path := orElse(c.CrmNode, "crm_node")
	out, err := c.ask(ctx, maxName, path, "--name")
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(out))
	if name == "" || strings.ContainsAny(name, " \n\t") {
		return "", fmt.Errorf("%w: %s --name printed no name", ErrFailed, path)
	}
	return name, nil
}

const maxName = 4096

// ask runs one of the tools and takes what it prints.
func (c *Client) ask(ctx context.Context, limit int, path string, args ...string) ([]byte, error) {
	return c.askAbout(ctx, nil, limit, path, args...)
}

// askAbout is ask about a given CIB.
func (c *Client) askAbout(ctx context.Context, data []byte, limit int, path string, args ...string) ([]byte, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	r, err := call{path: path, args: args, stdin: data, limit: limit}.run(ctx)
	if errors.Is(err, ErrEnded) {
		return nil, fmt.Errorf("%w: Pacemaker cannot be asked any more; start pgrex again, as root", err)
	}
	mayTalk := mayConnect
	if c.mayConnect != nil {
		mayTalk = c.mayConnect
	}
	if err := explain(mayTalk, path+" "+args[0], r, err, began); err != nil {
		return nil, err
	}
	return r.stdout, nil
}

func (c *Client) timeout() time.Duration {
	if c.Timeout == 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

func (c *Client) cibAdmin() string { return orElse(c.CIBAdmin, "cibadmin") }
func (c *Client) crmMon() string   { return orElse(c.CrmMon, "crm_mon") }

func orElse(path, name string) string {
	if path == "" {
		return name
	}
	return path
}
