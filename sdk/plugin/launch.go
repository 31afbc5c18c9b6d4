package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/safeio"
)

// Config is what a host decides of a plugin.
type Config struct {
	// Path of the program.
	Path string
	// Digest is what the program must be; when empty, Process.Digest tells what
	// it was.
	Digest predicate.Digest
	// Program is one that Load has measured, and then runs instead of what is at
	// Path by now. It saves measuring it again for every start.
	Program *Program
	// Logger gets the plugin's standard error, at Debug level and when the
	// process has ended. Nil logs nothing.
	Logger *slog.Logger
	// MaxMessage bounds one message in bytes; MaxMessage when 0.
	MaxMessage int
	// StartTimeout bounds Launch; ten seconds when 0.
	StartTimeout time.Duration
	// Catalogue is the closed set of rules that a scanner may describe. Nil
	// allows any.
	Catalogue *finding.Catalogue
	// Sandbox says how much is put on around the plugin; SandboxOff when empty.
	Sandbox Sandbox
	// Reads are the files and folders, by their absolute paths, that the plugin may
	// read in the sandbox, besides what it is handed open. What is not there is
	// passed over.
	Reads []string
	// Egress is what a connector may reach by way of this process; nil for nothing.
	Egress *Egress

	args    []string
	without []predicate.Layer
}

// handshakeGrace is how long a process that did not shake hands is waited for, to
// say how it ended.
const handshakeGrace = 200 * time.Millisecond

// Process is a plugin that runs. It is closed by Close, and ends by itself when
// this process does.
type Process struct {
	cfg    Config
	digest predicate.Digest
	child  *child
	client *goplugin.Client
	conn   *grpc.ClientConn
	fds    *descriptors
	// egress is nil when the plugin reaches nothing.
	egress *egress
	tail   *safeio.Tail
	dir    string
	// release gives dir back; nil while there is none.
	release func() error

	handles atomic.Uint64
	closing sync.Once
	closed  chan struct{}
	// done is closed when watch has ended; nil when the start failed.
	done chan struct{}
}

// Launch starts the program and connects to it. ctx bounds the start and not
// the process.
func Launch(ctx context.Context, cfg Config) (*Process, error) {
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = MaxMessage
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = startTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.StartTimeout, fmt.Errorf("no connection within %s: %w", cfg.StartTimeout, context.DeadlineExceeded))
	defer cancel()
	program := cfg.Program
	if program == nil {
		var err error
		if program, err = Load(cfg.Path, cfg.Digest); err != nil {
			return nil, fmt.Errorf("launch plugin: %w", err)
		}
		defer func() { _ = program.Close() }()
	}
	cfg.Path = program.path
	if err := keepDescriptors(); err != nil {
		return nil, fmt.Errorf("launch plugin: %w", err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("launch plugin: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	fds, err := newDescriptors(ours)
	if err != nil {
		return nil, fmt.Errorf("launch plugin: %w", err)
	}
	p := &Process{cfg: cfg, digest: program.digest, fds: fds, tail: safeio.NewTail(stderrTail), closed: make(chan struct{})}
	sockets := []*os.File{theirs}
	if cfg.Egress != nil {
		ours, theirs, err := newEgress(*cfg.Egress, cfg.Logger.With(slog.String("program", cfg.Path)))
		if err != nil {
			return nil, fmt.Errorf("launch plugin %s: %w", cfg.Path, errors.Join(err, p.Close()))
		}
		defer func() { _ = theirs.Close() }()
		p.egress, sockets = ours, append(sockets, theirs)
	}
	if err := p.start(ctx, program.sealed, sockets); err != nil {
		return nil, fmt.Errorf("launch plugin %s: %w", cfg.Path, errors.Join(err, p.Close()))
	}
	return p, nil
}

func (p *Process) start(ctx context.Context, program *os.File, sockets []*os.File) error {
	config := p.clientConfig()
	inTime := func() bool { return true }
	config.RunnerFunc = func(_ hclog.Logger, spec *exec.Cmd, dir string) (runner.Runner, error) {
		p.dir = dir
		release, err := holdFolder(dir)
		if err != nil {
			return nil, err
		}
		p.release = release
		confined, err := newConfinement(p.cfg, program, dir)
		if err != nil {
			return nil, err
		}
		c, err := newChild(launcher{program, sockets, p.cfg.args, spec.Env, confined}, dir)
		if err != nil {
			return nil, err
		}
		p.child = c
		// go-plugin's own waits know no context: killing the process ends them.
		inTime = context.AfterFunc(ctx, func() { _ = c.Kill(ctx) })
		return c, nil
	}
	p.client = goplugin.NewClient(config)
	err := p.connect(config)
	if !inTime() {
		return context.Cause(ctx)
	}
	if err != nil {
		var broke *ContractError
		if errors.As(err, &broke) {
			return broke
		}
		if p.child != nil && errors.Is(p.child.refused, ErrSandbox) {
			return p.child.refused
		}
		if p.child != nil {
			soon := time.NewTimer(handshakeGrace)
			defer soon.Stop()
			select {
			case <-p.child.exited:
				return fmt.Errorf("shake hands: %s: %w", words(err.Error()), p.child.exit)
			case <-soon.C:
			}
		}
		return fmt.Errorf("shake hands: %s", words(err.Error()))
	}
	p.done = make(chan struct{})
	go p.watch()
	return nil
}

func (p *Process) clientConfig() *goplugin.ClientConfig {
	set := goplugin.PluginSet{"plugin": &wire{}}
	return &goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{protocol: set},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     2 * p.cfg.StartTimeout,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard}),
		Stderr:           p.tail,
		SyncStdout:       p.tail,
		SyncStderr:       p.tail,
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.cfg.MaxMessage), grpc.MaxCallSendMsgSize(p.cfg.MaxMessage)),
			grpc.WithMaxHeaderListSize(maxHeaderBytes),
			grpc.WithInitialWindowSize(4 * chunk), grpc.WithInitialConnWindowSize(8 * chunk),
			grpc.WithStreamInterceptor(guard),
		},
	}
}

// guard keeps go-plugin's own services small. The broker is refused: it would
// let a plugin grow this process by a goroutine for every message it sends. An
// error of the stdio service is reported as the one that go-plugin does not
// answer by losing the connection.
func guard(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	switch method {
	case "/plugin.GRPCBroker/StartStream":
		return nil, status.Error(codes.Unavailable, "no broker")
	case "/plugin.GRPCStdio/StreamStdio":
		s, err := next(ctx, desc, cc, method, opts...)
		if err != nil {
			return nil, status.Error(codes.Unavailable, "no stdio")
		}
		return s, nil
	}
	return next(ctx, desc, cc, method, opts...)
}

func (p *Process) connect(config *goplugin.ClientConfig) error {
	if _, err := p.client.Start(); err != nil {
		return err
	}
	if config.TLSConfig == nil || config.TLSConfig.RootCAs == nil {
		return contractf("the plugin offers no certificate")
	}
	rpc, err := p.client.Client()
	if err != nil {
		return err
	}
	conn, err := rpc.Dispense("plugin")
	if err != nil {
		return err
	}
	p.conn = conn.(*grpc.ClientConn)
	return nil
}

// watch tells of the process's end.
func (p *Process) watch() {
	<-p.child.exited
	tail, dropped := p.tail.Snapshot()
	p.cfg.Logger.Debug("plugin ended", slog.String("program", p.cfg.Path), slog.String("pid", p.child.ID()),
		slog.String("how", p.child.exit.Error()), slog.String("stderr", words(tail)), slog.Any("stderr_dropped", dropped))
	close(p.done)
}

// Digest is that of the program that runs.
func (p *Process) Digest() predicate.Digest { return p.digest }

// Layers are the layers of isolation in force since before the plugin's first
// instruction, in ascending order.
func (p *Process) Layers() []predicate.Layer { return slices.Clone(p.child.layers) }

// Refused is how often the plugin asked for what it may not reach.
func (p *Process) Refused() uint64 {
	if p.egress == nil {
		return 0
	}
	return p.egress.refused.Load()
}

// Exited is closed when the process has ended, for whatever reason.
func (p *Process) Exited() <-chan struct{} { return p.child.exited }

// Stderr returns the end of what the plugin wrote to its standard error. It is
// the plugin's word, may quote artifact bytes, and must not leave the machine.
func (p *Process) Stderr() string {
	tail, _ := p.tail.Snapshot()
	return tail
}

// Close ends the process group, at once, and waits until nothing is left of it.
func (p *Process) Close() error {
	var err error
	p.closing.Do(func() {
		close(p.closed)
		if p.child != nil {
			err = p.child.Kill(context.Background())
		}
		if p.client != nil {
			p.client.Kill()
		}
		if p.done != nil {
			<-p.done
		}
		err = errors.Join(err, p.fds.close())
		if p.egress != nil {
			err = errors.Join(err, p.egress.close())
		}
		if p.release != nil {
			err = errors.Join(err, p.release())
		}
	})
	if err != nil {
		return fmt.Errorf("close plugin: %w", err)
	}
	return nil
}

// fault says what an error of a call means.
func (p *Process) fault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-p.closed:
		return ErrClosed
	default:
	}
	st := status.Convert(err)
	switch st.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return p.broken(ctx)
	case codes.ResourceExhausted, codes.Internal, codes.Unimplemented, codes.InvalidArgument:
		return contractf("%s: %s", st.Code(), words(st.Message()))
	}
	if f := failureOf(st); f != nil {
		return f
	}
	return contractf("%s: %s", st.Code(), words(st.Message()))
}

// broken is called when the connection is: the process has ended, or is about
// to, or is of no use any more and is ended.
func (p *Process) broken(ctx context.Context) error {
	grace := time.NewTimer(exitGrace)
	defer grace.Stop()
	select {
	case <-p.child.exited:
		return p.child.exit
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-grace.C:
	}
	if err := p.child.Kill(ctx); err != nil {
		return err
	}
	<-p.child.exited
	return p.child.exit
}
