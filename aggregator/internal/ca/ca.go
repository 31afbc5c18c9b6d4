// Package ca is the aggregator's own certificate authority, for the connections
// of agents and of the service that they call.
//
// It guarantees that what it certifies for an agent is good for a client only,
// for the one tenant and agent that its SPIFFE id names, and for a short time;
// and that its key is made once and is readable by its owner only.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
)

// The files of an authority that was made here.
const (
	CertificateFile = "ca.pem"
	KeyFile         = "ca.key"
)

// The times.
const (
	rootLife = 10 * 365 * 24 * time.Hour
	// before is how far a server's certificate reaches back: an agent whose clock
	// is late has to reach the service in order to be told so.
	before = 7 * 24 * time.Hour
	// serverLife is how long the service's own certificate is good; it is made
	// anew when half of it is over, in memory.
	serverLife = 30 * 24 * time.Hour
	// slack is how far an agent's certificate reaches back, for aggregators whose
	// clocks differ.
	slack = 5 * time.Minute
	// MinLife and MaxLife bound an agent's certificate.
	MinLife = 10 * time.Second
	MaxLife = 90 * 24 * time.Hour
)

const (
	maxFile    = 64 << 10
	serialBits = 128
)

// Config says where the authority is.
type Config struct {
	// Certificate and Key are PEM files. The first certificate is the one that
	// signs; others in the file are believed as well.
	Certificate, Key string
	// Dir is where an authority is made, and found again, when no files are named.
	Dir string
	// TrustDomain is the first part of every SPIFFE id.
	TrustDomain string
	// Life is how long an agent's certificate is good.
	Life time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

var domain = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,100}[a-z0-9])?$`)

// ValidateTrustDomain reports whether a name can be a trust domain of ours: one
// that is a host name too.
func ValidateTrustDomain(s string) error {
	if !domain.MatchString(s) || strings.Contains(s, "..") {
		return fmt.Errorf("trust domain %q: want lower-case letters, digits, dots and hyphens, as in cavra.example.com", s)
	}
	return nil
}

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	cfg    Config
	issuer *x509.Certificate
	key    crypto.Signer
	bundle string
	pool   *x509.CertPool

	mu     sync.Mutex
	server *tls.Certificate
}

// Open reads the authority, or makes it in Dir.
func Open(cfg Config) (*Authority, error) {
	if err := ValidateTrustDomain(cfg.TrustDomain); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	if cfg.Life < MinLife || cfg.Life > MaxLife {
		return nil, fmt.Errorf("open certificate authority: certificates of %s: want %s to %s", cfg.Life, MinLife, MaxLife)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Authority{cfg: cfg}
	if cfg.Certificate == "" {
		if err := a.ensure(); err != nil {
			return nil, fmt.Errorf("make certificate authority: %w", err)
		}
	}
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	return a, nil
}

// ensure makes the authority in the folder unless it is there. The certificate is
// written last: a crash in between leaves a key that nobody has used.
func (a *Authority) ensure() error {
	a.cfg.Certificate, a.cfg.Key = filepath.Join(a.cfg.Dir, CertificateFile), filepath.Join(a.cfg.Dir, KeyFile)
	if _, err := os.Stat(a.cfg.Certificate); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key, err := identity.Generate(predicate.ECDSAP256)
	if err != nil {
		return err
	}
	keyPEM, err := key.MarshalPEM()
	if err != nil {
		return err
	}
	signer, err := readKey(keyPEM)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	now := a.cfg.Now()
	root := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "CAVRA agents of " + a.cfg.TrustDomain},
		NotBefore: now.Add(-before), NotAfter: now.Add(rootLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:     []*url.URL{{Scheme: "spiffe", Host: a.cfg.TrustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, signer.Public(), signer)
	if err != nil {
		return err
	}
	if err := diskio.MakeDir(diskio.OS{}, a.cfg.Dir, 0o700); err != nil {
		return err
	}
	if err := diskio.WriteFile(diskio.OS{}, a.cfg.Key, keyPEM, 0o600); err != nil {
		return err
	}
	return diskio.WriteFile(diskio.OS{}, a.cfg.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func (a *Authority) load() error {
	text, err := diskio.ReadFile(a.cfg.Certificate, maxFile)
	if err != nil {
		return err
	}
	a.pool = x509.NewCertPool()
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: %w", a.cfg.Certificate, err)
		}
		if !c.IsCA {
			return fmt.Errorf("%s: the certificate of %q is not an authority's", a.cfg.Certificate, c.Subject)
		}
		a.pool.AddCert(c)
		a.bundle += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
		if a.issuer == nil {
			a.issuer = c
		}
	}
	if a.issuer == nil {
		return fmt.Errorf("%s holds no certificate", a.cfg.Certificate)
	}
	keyPEM, err := diskio.ReadFile(a.cfg.Key, maxFile)
	if err != nil {
		return err
	}
	if a.key, err = readKey(keyPEM); err != nil {
		return fmt.Errorf("%s: %w", a.cfg.Key, err)
	}
	public, ok := a.key.Public().(*ecdsa.PublicKey)
	if !ok || !public.Equal(a.issuer.PublicKey) {
		return fmt.Errorf("%s is not the key of the first certificate of %s", a.cfg.Key, a.cfg.Certificate)
	}
	if now := a.cfg.Now(); now.After(a.issuer.NotAfter) || now.Before(a.issuer.NotBefore) {
		return fmt.Errorf("%s: the authority's certificate is good from %s to %s", a.cfg.Certificate, a.issuer.NotBefore, a.issuer.NotAfter)
	}
	return nil
}

func readKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("want a PEM block of type PRIVATE KEY (PKCS #8)")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("want an ECDSA key on P-256")
	}
	return key, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits-1))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// Issued is a certificate for an agent.
type Issued struct {
	// Serial is the serial number's bytes.
	Serial   []byte
	DER      []byte
	NotAfter time.Time
}

// Issue certifies an agent's key. The name is what brokers know the agent by.
// The caller has verified that whoever asks holds the key, and is that agent.
func (a *Authority) Issue(tenant, agent, name string, key identity.PublicKey) (Issued, error) {
	if err := errors.Join(predicate.ValidateID(tenant), predicate.ValidateID(agent)); err != nil {
		return Issued{}, fmt.Errorf("issue certificate: %w", err)
	}
	if key.Algorithm != predicate.ECDSAP256 {
		return Issued{}, fmt.Errorf("issue certificate: a key of %s: want %s", key.Algorithm, predicate.ECDSAP256)
	}
	serial, err := newSerial()
	if err != nil {
		return Issued{}, err
	}
	now := a.cfg.Now()
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-slack), NotAfter: sooner(now.Add(a.cfg.Life), a.issuer.NotAfter), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{a.spiffe(tenant, agent)},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.issuer, key.Crypto(), a.key)
	if err != nil {
		return Issued{}, fmt.Errorf("issue certificate: %w", err)
	}
	return Issued{Serial: serial.Bytes(), DER: der, NotAfter: leaf.NotAfter.Truncate(time.Second)}, nil
}

func (a *Authority) spiffe(tenant, agent string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: a.cfg.TrustDomain, Path: "/tenant/" + tenant + "/agent/" + agent}
}

// IsAgent reports whether a certificate, which was verified against Pool, names
// exactly this tenant and agent.
func (a *Authority) IsAgent(c *x509.Certificate, tenant, agent string) bool {
	return len(c.URIs) == 1 && c.URIs[0].String() == a.spiffe(tenant, agent).String()
}

// Secret is one of the authority's own for a purpose: the same for all
// aggregators that share the authority, and of no use for its key.
func (a *Authority) Secret(purpose string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("derive secret: %w", err)
	}
	return hkdf.Key(sha256.New, der, nil, "cavra-"+purpose, sha256.Size)
}

// Life is how long an agent's certificate is good.
func (a *Authority) Life() time.Duration { return a.cfg.Life }

// Bundle is what agents have to believe, PEM.
func (a *Authority) Bundle() string { return a.bundle }

// Pool is what agents have to believe.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// ServerName is what the service's certificate names, whatever its address.
func (a *Authority) ServerName() string { return "aggregator." + a.cfg.TrustDomain }

// ServerTLS is the configuration of the service: TLS 1.3, for those who have a
// certificate of this authority.
func (a *Authority) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool, Time: a.cfg.Now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.ServerCertificate() },
		NextProtos:     []string{"h2", "http/1.1"},
		// A connection is verified anew, each time.
		SessionTicketsDisabled: true, KeyLogWriter: keyLog(),
	}
}

// BrokerTLS is the configuration of the embedded broker, whose clients log in
// by a password.
func (a *Authority) BrokerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Time: a.cfg.Now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.ServerCertificate() },
		KeyLogWriter:   keyLog(),
	}
}

// ServerCertificate is a certificate for the aggregator's own services, with its
// key.
func (a *Authority) ServerCertificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	if a.server != nil && now.Before(a.server.Leaf.NotAfter.Add(-serverLife/2)) {
		return a.server, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the service's certificate: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: a.ServerName()},
		// The embedded broker, which is on this machine alone, is called by address.
		DNSNames: []string{a.ServerName(), "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: later(now.Add(-before), a.issuer.NotBefore), NotAfter: now.Add(serverLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: a.cfg.TrustDomain, Path: "/aggregator"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.issuer, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make the service's certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the service's certificate: %w", err)
	}
	a.server = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return a.server, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
