package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
)

// Agent is an agent's folder and, while it runs, its process. Its methods are
// not safe for concurrent use.
type Agent struct {
	programs Programs
	dir      string
	log      string
	process  *process
	// Env is added to the environment of every run, and Through, where it is not
	// nil, starts it.
	Env     []string
	Through func(*exec.Cmd) error
}

// NewAgent names the agent's folder; the log lies beside it.
func NewAgent(programs Programs, dir string) (*Agent, error) {
	log, err := logFile(filepath.Dir(dir), filepath.Base(dir)+"-agent")
	if err != nil {
		return nil, err
	}
	return &Agent{programs: programs, dir: dir, log: log}, nil
}

// Dir is the agent's folder.
func (a *Agent) Dir() string { return a.dir }

// Log is the file that holds what it printed.
func (a *Agent) Log() string { return a.log }

// Enrol exchanges the join token in a file for an identity. args are added to
// the command line.
func (a *Agent) Enrol(ctx context.Context, server, tokenFile string, args ...string) error {
	out, err := Command(ctx, nil, a.programs.Cavra(),
		append([]string{"agent", "enroll", "--server", server, "--token-file", tokenFile, "--dir", a.dir}, args...)...)
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fmt.Errorf("enrol agent: exit code %d: %s%s", out.Code, out.Stdout, out.Stderr)
	}
	return nil
}

// Launch starts the agent. env is added to the environment, args to the command
// line.
func (a *Agent) Launch(env []string, args ...string) error {
	if a.Running() {
		return errors.New("start agent: it runs already")
	}
	var err error
	through := a.Through
	if through == nil {
		through = (*exec.Cmd).Start
	}
	a.process, err = startThrough(through, a.log, slices.Concat(a.Env, env), a.programs.Cavra(), append([]string{"agent", "run", "--dir", a.dir}, args...)...)
	return err
}

// RunOnce runs one round to its end.
func (a *Agent) RunOnce(ctx context.Context, env ...string) error {
	if err := a.Launch(env, "--once"); err != nil {
		return err
	}
	return a.Wait(ctx)
}

// Wait waits until the agent has ended well. When ctx ends, the agent is killed.
func (a *Agent) Wait(ctx context.Context) error {
	err := a.process.wait(ctx)
	if ctx.Err() != nil {
		a.process.kill()
	}
	if err != nil {
		return fmt.Errorf("run agent: %w\n%s:\n%s", err, a.log, tail(a.log))
	}
	return nil
}

// Running reports whether the program runs.
func (a *Agent) Running() bool { return a.process != nil && a.process.running() }

// Killed waits for the end and reports whether it was SIGKILL; an end that is
// neither that nor good is an error.
func (a *Agent) Killed(ctx context.Context) (bool, error) {
	err := a.process.wait(ctx)
	switch {
	case err == nil:
		return false, nil
	case killed(err):
		return true, nil
	}
	return false, fmt.Errorf("run agent: %w\n%s:\n%s", err, a.log, tail(a.log))
}

// Kill ends the program with SIGKILL, and only it.
func (a *Agent) Kill() {
	if a.Running() {
		a.process.killAlone()
	}
}

// Close kills what still runs, the program's whole group.
func (a *Agent) Close() {
	if a.process != nil {
		a.process.kill()
	}
}

// Stop ends the program in good order.
func (a *Agent) Stop() error {
	if !a.Running() {
		return nil
	}
	return a.process.stop()
}

// Head is the last link that an agent has signed.
type Head struct {
	Epoch    uint64           `json:"epoch"`
	Sequence uint64           `json:"sequence"`
	Digest   predicate.Digest `json:"head"`
	// Waiting statements are signed and not acknowledged.
	Waiting uint64 `json:"waiting"`
	// Running is the process that runs over the folder; 0 when none does.
	Running int `json:"running_pid"`
	// FullSince is when scanning began to wait for room; empty while it does not.
	FullSince string `json:"full_since"`
}

// Status asks where the agent's chain stands.
func (a *Agent) Status(ctx context.Context) (Head, error) {
	out, err := Command(ctx, nil, a.programs.Cavra(), "agent", "status", "--dir", a.dir, "--format", "json")
	if err != nil {
		return Head{}, err
	}
	if out.Code != 0 {
		return Head{}, fmt.Errorf("cavra agent status: exit code %d: %s", out.Code, out.Stderr)
	}
	var h Head
	if err := json.Unmarshal(out.Stdout, &h); err != nil {
		return Head{}, fmt.Errorf("cavra agent status: %w", err)
	}
	return h, nil
}

// Ended is closed when the program that was started last has ended.
func (a *Agent) Ended() <-chan struct{} { return a.process.done }

// Identity is what the agent's folder says of who it is, its login to Kafka
// included.
type Identity struct {
	Tenant  string           `json:"tenant"`
	Agent   string           `json:"agent"`
	Epoch   uint64           `json:"epoch"`
	KeyID   predicate.Digest `json:"key_id"`
	KeyFile string           `json:"key_file"`
	Kafka   struct {
		Brokers   []string `json:"brokers"`
		Topic     string   `json:"topic"`
		Mechanism string   `json:"mechanism"`
		Username  string   `json:"username"`
		Password  string   `json:"password"`
	} `json:"kafka"`
}

// Identity reads identity.json.
func (a *Agent) Identity() (Identity, error) {
	var id Identity
	b, err := os.ReadFile(filepath.Join(a.dir, "identity.json"))
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read agent's identity: %w", err)
	}
	return id, nil
}
