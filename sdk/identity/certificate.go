package identity

import (
	"crypto/x509"
	"fmt"
)

// maxCertificate bounds a certificate, in bytes; ours have some 700.
const maxCertificate = 8 << 10

// ParseCertificate reads a certificate in DER.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("parse certificate: %d bytes, at most %d", len(der), maxCertificate)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return c, nil
}
