package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func parse(t testing.TB, entries ...string) List {
	t.Helper()
	l, err := Parse(entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestParseRefuses(t *testing.T) {
	for entry, want := range map[string]string{
		"":                                "no port",
		"registry.example":                "no port",
		"registry.example:":               "no port between",
		"registry.example:0":              "no port between",
		"registry.example:0443":           "no port between",
		"registry.example:65536":          "no port between",
		"registry.example:https":          "no port between",
		"*.example:443":                   "no name",
		"https://registry.ex:443":         "want a network",
		"user@registry:443":               "no name",
		"règistry.example:443":            "no name",
		"a..b:443":                        "no name",
		"-a.b:443":                        "no name",
		"127.1:80":                        "no name",
		"0x7f000001:80":                   "no name",
		"2130706433:80":                   "no name",
		"a.0x1:80":                        "no name",
		"[fe80::1%eth0]:80":               "zone",
		"::1:80":                          "no port",
		"10.0.0.1/8":                      "the network is 10.0.0.0/8",
		"0.0.0.0/0":                       "need no network",
		"::/0":                            "need no network",
		"8.0.0.0/8":                       "need no network",
		"10.0.0.0/7":                      "need no network",
		"::ffff:10.0.0.0/104":             "want a network",
		strings.Repeat("a", 300) + ":443": "longer than",
	} {
		if _, err := Parse([]string{entry}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", entry, err, want)
		}
	}
	if _, err := Parse(make([]string, MaxEntries+1)); err == nil {
		t.Error("there is no bound")
	}
}

func TestCheckIsExact(t *testing.T) {
	d := Dialer{List: parse(t, "Registry.Example.:443", "10.1.2.3:8080", "[2001:DB8::1]:443", "10.0.0.0/8")}
	for address, allowed := range map[string]bool{
		"registry.example:443":          true,
		"REGISTRY.example.:443":         true,
		"registry.example:80":           false,
		"a.registry.example:443":        false,
		"registry.example.evil:443":     false,
		"registry.exampl:443":           false,
		"registry.example..:443":        false,
		"registry.example\x00.evil:443": false,
		"10.1.2.3:8080":                 true,
		"[::ffff:10.1.2.3]:8080":        true,
		"10.1.2.3:443":                  false,
		"10.1.2.4:8080":                 false,
		"010.1.2.3:8080":                false,
		"167838211:8080":                false,
		"[2001:db8:0::1]:443":           true,
		"169.254.169.254:80":            false,
		"":                              false,
		":443":                          false,
	} {
		err := d.Check(address)
		var refused *RefusedError
		if allowed != (err == nil) || err != nil && !errors.As(err, &refused) {
			t.Errorf("%q: %v", address, err)
		}
	}
	if err := (Dialer{}).Check("registry.example:443"); err == nil {
		t.Error("an empty list allows something")
	}
}

// TestNamesDoNotLeadInside resolves a listed name to every kind of address.
func TestNamesDoNotLeadInside(t *testing.T) {
	inside := []string{
		"127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200",
		"169.254.169.254", "169.254.1.1", "168.63.129.16", "0.0.0.0", "0.1.2.3", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::1",
	}
	outside := []string{"93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "11.0.0.1"}
	l := parse(t, "a.example:443")
	d := func(list List, addr string) error {
		_, err := Dialer{List: list, Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr(addr)}, nil
		}}.addresses(t.Context(), "a.example", 443)
		return err
	}
	var refused *RefusedError
	for _, addr := range inside {
		if err := d(l, addr); !errors.As(err, &refused) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range outside {
		if err := d(l, addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	// Only the very address, or its network, lifts it.
	for _, tt := range []struct {
		entry, addr string
		allowed     bool
	}{
		{"10.1.2.3:443", "10.1.2.3", true}, {"10.1.2.3:80", "10.1.2.3", false}, {"10.1.2.3:443", "10.1.2.4", false},
		{"10.1.0.0/16", "10.1.2.3", true}, {"10.1.0.0/16", "10.2.2.3", false}, {"10.1.0.0/16", "::ffff:10.1.2.3", true},
		{"127.0.0.0/8", "127.0.0.1", true}, {"127.0.0.0/8", "::1", false}, {"fd00:ec2::/64", "fd00:ec2::254", true},
		{"10.0.0.0/8", "169.254.169.254", false},
	} {
		if err := d(parse(t, "a.example:443", tt.entry), tt.addr); (err == nil) != tt.allowed {
			t.Errorf("%s with %s: %v", tt.addr, tt.entry, err)
		}
	}
}

// TestRebinding gives a name another address each time that it is asked for: it is
// asked for once, and the refused ones of several are left out.
func TestRebinding(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port := server.Addr().(*net.TCPAddr).Port
	asked := 0
	d := Dialer{
		List: parse(t, fmt.Sprintf("a.example:%d", port), fmt.Sprintf("127.0.0.1:%d", port)),
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			if asked++; asked > 1 {
				return nil, errors.New("asked again")
			}
			return []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("127.0.0.1")}, nil
		},
	}
	c, err := d.Dial(t.Context(), fmt.Sprintf("A.example:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != server.Addr().String() {
		t.Errorf("connected to %s", got)
	}
}

// TestDialAsTheMachineResolves connects to this machine's own name, which only its
// network's entry allows.
func TestDialAsTheMachineResolves(t *testing.T) {
	server, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	place := fmt.Sprintf("localhost:%d", server.Addr().(*net.TCPAddr).Port)
	var refused *RefusedError
	if c, err := (Dialer{List: parse(t, place)}).Dial(t.Context(), place); !errors.As(err, &refused) {
		t.Errorf("%v, %v", c, err)
	}
	c, err := Dialer{List: parse(t, place, "127.0.0.0/8", "::1/128")}.Dial(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestDialEndsInTime(t *testing.T) {
	d := Dialer{List: parse(t, "a.example:443"), Timeout: 50 * time.Millisecond, Lookup: func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}}
	if _, err := d.Dial(t.Context(), "a.example:443"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 50ms") {
		t.Errorf("%v", err)
	}
}

// FuzzSplit holds that whatever is taken is spelled in one way, and no address in
// another one.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"a.example:443", "A.B.:1", "[::ffff:1.2.3.4]:80", "127.1:80", "0x7f.1:80", "[::1%lo]:1", "a:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := split(s)
		if err != nil {
			return
		}
		again, p, err := split(join(host, port))
		if err != nil || again != host || p != port {
			t.Errorf("%q is %q, which is %q, %v", s, host, again, err)
		}
		if a, err := netip.ParseAddr(host); err == nil && (a.Is4In6() || a.String() != host) {
			t.Errorf("%q is %q", s, host)
		}
		if d := (Dialer{List: parse(t, join(host, port))}); d.Check(s) != nil {
			t.Errorf("%q is not itself", s)
		}
	})
}
