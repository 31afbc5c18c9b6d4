package pluginhost

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/reach"
)

// Reach is what a connector gets at.
type Reach struct {
	// Roots are the files and folders that it may read.
	Roots []string
	// Allow is what it may reach over the network.
	Allow reach.List
	// Credentials are the files of what it is handed, by name.
	Credentials map[string]string
	// Authority is a file of certificates that it may trust besides those that the
	// machine does; empty for none.
	Authority string
}

// place is a folder or file, whatever it is called, and when it was written where
// that matters.
type place struct {
	device, inode uint64
	written       int64
}

// places says where everything is by now; what is not there is nowhere.
func (r Reach) places() []place {
	var out []place
	for _, root := range r.Roots {
		p := placeOf(root)
		p.written = 0 // a folder's changes with what is in it
		out = append(out, p)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Credentials)) {
		out = append(out, placeOf(r.Credentials[name]))
	}
	if r.Authority != "" {
		out = append(out, placeOf(r.Authority))
	}
	return out
}

func placeOf(path string) place {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return place{}
	}
	return place{st.Dev, st.Ino, st.Mtim.Nano()}
}

// egress reads what is to be handed over; nil for a connector that needs none.
func (r Reach) egress() (*plugin.Egress, error) {
	if r.Allow.Len() == 0 && len(r.Credentials) == 0 && r.Authority == "" {
		return nil, nil //nolint:nilnil // a connector of local files, as a rule
	}
	e := &plugin.Egress{Allow: r.Allow, Credentials: make(map[string][]byte)}
	for name, path := range r.Credentials {
		b, err := readBounded(path, plugin.MaxCredential)
		if err != nil {
			return nil, fmt.Errorf("credential %s: %w", name, err)
		}
		e.Credentials[name] = b
	}
	var err error
	if e.Authorities, err = authorities(r.Authority); err != nil {
		return nil, err
	}
	return e, nil
}

// bundles are where distributions keep the certificates of the authorities that a
// machine trusts; the first that is there counts.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem", "/etc/ssl/cert.pem",
}

// authorities are the machine's, as SSL_CERT_FILE names them or the distribution
// keeps them, and those of a file.
func authorities(own string) ([]byte, error) {
	files := bundles
	if named := os.Getenv("SSL_CERT_FILE"); named != "" {
		files = []string{named}
	}
	var out []byte
	for _, name := range files {
		b, err := readBounded(name, plugin.MaxAuthorities)
		if err == nil {
			out = append(b, '\n')
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the machine's authorities: %w", err)
		}
	}
	if own != "" {
		b, err := readBounded(own, plugin.MaxAuthorities)
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		out = append(out, b...)
	}
	return out, nil
}

func readBounded(name string, most int64) (_ []byte, err error) {
	f, err := os.OpenFile(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) == 0 || int64(len(b)) > most {
		return nil, fmt.Errorf("read %s: want 1 to %d bytes", name, most)
	}
	return b, nil
}
