package plugin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	goplugin "github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// The test program is its own plugin: a host's handshake in the environment
// makes it one, and its first argument says which.
func TestMain(m *testing.M) {
	if Launched() {
		os.Exit(play(os.Args[1]))
	}
	goleak.VerifyTestMain(m)
}

func play(role string) int {
	var err error
	switch role {
	case "scanner":
		err = ServeScanner(testScanner{})
	case "raw":
		err = serve(func(*descriptors) goplugin.Plugin {
			return &wire{register: func(g *grpc.Server) { pb.RegisterScannerServer(g, rawScanner{}) }}
		})
	case "badrules":
		err = ServeScanner(badRules{})
	case "connector":
		err = ServeConnector(testConnector{})
	case "remote":
		err = serveRemote()
	case "rawconnector":
		err = serve(func(fds *descriptors) goplugin.Plugin {
			return &wire{register: func(g *grpc.Server) { pb.RegisterConnectorServer(g, rawConnector{fds: fds}) }}
		})
	case "hostile":
		err = hostile(os.Args[2], os.Args[3])
	case "foreign":
		otherMachine()
		err = ServeScanner(testScanner{})
	case "exit":
		return 7
	case "hang":
		forever()
	case "garbage":
		fmt.Println(strings.Repeat("garbage ", 4096))
		forever()
	case "elsewhere":
		fmt.Println("1|1|tcp|192.0.2.1:80|grpc|" + strings.Repeat("A", 64))
		forever()
	case "silent":
		// A handshake, and then nobody accepts.
		dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
		fd, _ := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		_ = syscall.Bind(fd, &syscall.SockaddrUnix{Name: dir + "/s"})
		_ = syscall.Listen(fd, 1)
		fmt.Println("1|1|unix|" + dir + "/s|grpc|" + os.Args[2])
		forever()
	case "grandchild":
		cmd := exec.Command("/bin/sleep", "600")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err = cmd.Start(); err == nil {
			fmt.Fprintln(os.Stderr, "grandchild", cmd.Process.Pid)
			err = ServeScanner(testScanner{})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// testScanner does what its target's path says.
type testScanner struct{}

func (testScanner) Describe() scanner.Description {
	return scanner.Description{Name: "test", Version: "1.0.0", RulesetVersion: "1", Rules: []string{"pickle.import.dangerous"}}
}

type badRules struct{ testScanner }

func (badRules) Describe() scanner.Description {
	return scanner.Description{Name: "test", Version: "1.0.0", RulesetVersion: "1", Rules: []string{"no.such.rule"}}
}

func (s testScanner) Scan(ctx context.Context, t scanner.Target) (scanner.Report, error) {
	r := scanner.Report{Format: "blob"}
	switch t.Path {
	case "crash":
		os.Exit(3)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "hang":
		<-ctx.Done()
		return r, ctx.Err()
	case "deaf":
		forever()
	case "settled":
		trySettled()
	case "panic":
		panic("on purpose")
	case "fail":
		r.AddFinding(dangerous())
		return r, fmt.Errorf("gave up \x1b[31m")
	case "rule":
		r.AddFinding(finding.Finding{Rule: "pickle.other", Location: finding.Location{Class: "blob"}})
	case "past":
		r.Coverage = []coverage.Range{{Kind: predicate.Parsed, Start: 0, End: t.Content.Size() + 1}}
	case "chatter":
		for range 1000 {
			fmt.Fprintln(os.Stderr, strings.Repeat("x", 1000))
		}
	case "env":
		for _, e := range os.Environ() {
			k, _, _ := strings.Cut(e, "=")
			r.Imports = append(r.Imports, finding.Import{Module: "env", Name: k, How: predicate.ByGlobal, Judged: predicate.JudgedHarmless, Location: finding.Location{Class: "blob"}})
		}
	case "many":
		for i := range scanner.MaxImports + 5 {
			r.Imports = append(r.Imports, finding.Import{Module: "m\xff", Name: fmt.Sprint(i), How: predicate.ByGlobal, Judged: predicate.JudgedUnknown, Location: finding.Location{Class: "blob"}})
		}
	case "sibling":
		return s.siblings(ctx, t)
	case "none":
		return r, nil
	case "read":
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.NewSectionReader(t.Content, 0, t.Content.Size())}, make([]byte, 1<<20))
		return r, err
	default:
		return s.digest(ctx, t, r)
	}
	return r, nil
}

func dangerous() finding.Finding {
	return finding.Finding{Rule: "pickle.import.dangerous", Location: finding.Location{Class: "blob", Member: "m", Offset: 1}, Evidence: []string{"posix.system"}}
}

// digest reads everything, and reports the digest as an import.
func (testScanner) digest(ctx context.Context, t scanner.Target, r scanner.Report) (scanner.Report, error) {
	d, err := safeio.Digest(ctx, t.Content, t.Path)
	if err != nil {
		return r, err
	}
	r.Imports = []finding.Import{{Module: "digest", Name: string(d), How: predicate.ByGlobal, Judged: predicate.JudgedHarmless, Location: finding.Location{Class: "blob"}}}
	r.Coverage = []coverage.Range{{Kind: predicate.Parsed, End: t.Content.Size()}}
	r.Children = []scanner.Child{{Member: fmt.Sprintf("%T", t.Content), Format: "blob"}}
	return r, nil
}

func (testScanner) siblings(ctx context.Context, t scanner.Target) (scanner.Report, error) {
	r := scanner.Report{Format: "blob"}
	for _, p := range []string{"a.bin", "dir/b.bin", "gone", "../escape"} {
		sib, err := t.Sibling(ctx, p)
		name := fmt.Sprintf("%T", sib)
		if err != nil {
			name = err.Error()
		} else {
			d, err := safeio.Digest(ctx, sib, p)
			if err != nil {
				return r, err
			}
			name += " " + string(d)
			_ = sib.Close()
		}
		r.Imports = append(r.Imports, finding.Import{Module: p, Name: name, How: predicate.ByGlobal, Judged: predicate.JudgedHarmless, Location: finding.Location{Class: "blob"}})
	}
	return r, nil
}

// rawScanner says over the wire what no author's code could.
type rawScanner struct{ pb.UnimplementedScannerServer }

func (rawScanner) Describe(context.Context, *pb.DescribeRequest) (*pb.ScannerDescription, error) {
	return &pb.ScannerDescription{Name: "raw", Version: "1", RulesetVersion: "1", Rules: []string{"pickle.import.dangerous"}}, nil
}

func (rawScanner) Scan(stream grpc.BidiStreamingServer[pb.ScanInput, pb.ScanOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	report := func(r *pb.Report) error {
		return stream.Send(&pb.ScanOutput{Output: &pb.ScanOutput_Report{Report: r}})
	}
	done := func(format string) error {
		return stream.Send(&pb.ScanOutput{Output: &pb.ScanOutput_Done{Done: &pb.Done{Format: format}}})
	}
	fetch := func(off int64, n int32) error {
		err := stream.Send(&pb.ScanOutput{Output: &pb.ScanOutput_Fetch{Fetch: &pb.Fetch{Handle: first.GetBegin().GetContent().GetHandle(), Offset: off, Length: n}}})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	switch first.GetBegin().GetPath() {
	case "huge":
		return report(&pb.Report{Imports: []*pb.Import{{Name: strings.Repeat("x", MaxMessage)}}})
	case "endless":
		for err == nil {
			err = report(&pb.Report{Children: []*pb.Child{{Member: strings.Repeat("x", scanner.MaxNameBytes), Format: "blob"}}})
		}
		return err
	case "ranges":
		for err == nil {
			err = report(&pb.Report{Ranges: make([]*pb.Range, 10_000)})
		}
		return err
	case "early":
		return nil
	case "format":
		return done("Not An Id")
	case "negative":
		return fetch(-1, 4)
	case "beyond":
		return fetch(first.GetBegin().GetContent().GetSize(), 1)
	case "overflow":
		return fetch(1<<63-2, 4)
	case "empty":
		return stream.Send(&pb.ScanOutput{})
	case "class":
		return report(&pb.Report{Findings: []*pb.Finding{{Rule: "pickle.import.dangerous", Location: &pb.Location{Class: "A b"}}}})
	case "judged":
		return report(&pb.Report{Imports: []*pb.Import{{How: "global", Judged: "fine", Location: &pb.Location{Class: "a"}}}})
	case "child":
		return report(&pb.Report{Children: []*pb.Child{{Format: "blob", End: 1 << 40}}})
	}
	return done("blob")
}

// testConnector lists what its root says.
type testConnector struct{}

func (testConnector) Describe() connector.Description {
	return connector.Description{Name: "test", Version: "1.0.0"}
}

func (testConnector) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		switch root {
		case "missing":
			yield(artifact.Item{}, fmt.Errorf("list: %w", os.ErrNotExist))
			return
		case "unsorted":
			_ = yield(artifact.Item{Key: "b", Path: "b"}, nil) && yield(artifact.Item{Key: "a", Path: "a"}, nil)
			return
		case "problem":
			yield(artifact.Item{Key: "a", Path: "a", Problem: "it is ill"}, nil)
			return
		case "escape":
			yield(artifact.Item{Key: "a", Path: "../a"}, nil)
			return
		case "crash":
			os.Exit(4)
		}
		for i := range 10_000 {
			if !yield(artifact.Item{Key: fmt.Sprintf("k%05d", i), Path: fmt.Sprintf("p%05d", i), Size: int64(i)}, nil) || ctx.Err() != nil {
				return
			}
		}
	}
}

func (testConnector) Open(_ context.Context, root, key string) (artifact.Reader, error) {
	switch key {
	case "gone":
		return nil, fmt.Errorf("open: %w", os.ErrNotExist)
	case "pipe":
		return nil, &connector.Problem{Reason: predicate.NotRegular, Err: safeio.ErrNotRegular}
	case "file":
		f, err := os.OpenFile(root, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		return safeio.NewFile(f, key)
	}
	return memory(blob(3<<20 + 7)), nil
}

// rawConnector breaks the contract of Open.
type rawConnector struct {
	pb.UnimplementedConnectorServer
	fds *descriptors
}

func (rawConnector) Describe(context.Context, *pb.DescribeRequest) (*pb.ConnectorDescription, error) {
	return &pb.ConnectorDescription{Name: "raw", Version: "1"}, nil
}

func (r rawConnector) Open(ctx context.Context, in *pb.OpenRequest) (*pb.Opened, error) {
	name := in.GetRoot()
	switch in.GetKey() {
	case "negative":
		return &pb.Opened{Size: -1}, nil
	case "short":
		return &pb.Opened{Handle: 1, Size: 100}, nil
	case "pipe":
		name = "/dev/null"
	case "named":
		fd, err := syscall.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer syscall.Close(fd)
		return &pb.Opened{Handle: 6, Size: 6, Descriptor_: true}, r.fds.send(ctx, 6, fd)
	case "none":
		var control [0]byte
		_, _, err := r.fds.conn.WriteMsgUnix([]byte("12345678"), control[:], nil)
		return &pb.Opened{Handle: 1, Descriptor_: true}, err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return &pb.Opened{Handle: 5, Size: 1, Descriptor_: true}, r.fds.send(ctx, 5, int(f.Fd()))
}

func (rawConnector) Read(context.Context, *pb.ReadRequest) (*pb.ReadResponse, error) {
	return &pb.ReadResponse{Data: []byte("x")}, nil
}

// memory is an artifact.Reader with no descriptor.
func memory(b []byte) artifact.Reader { return nopCloser{bytes.NewReader(b)} }

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

func blob(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

var _ io.ReaderAt = nopCloser{}

// forever never returns. An empty select would end the process where the
// runtime sees that nothing can happen any more, as it does without cgo.
func forever() {
	for {
		_ = syscall.Pause()
	}
}
