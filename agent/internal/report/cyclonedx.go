package report

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
)

// The members of CycloneDX 1.6 (ECMA-424) that a scan fills.
type cdxBOM struct {
	Schema          string             `json:"$schema"`
	Format          string             `json:"bomFormat"`
	SpecVersion     string             `json:"specVersion"`
	SerialNumber    string             `json:"serialNumber"`
	Version         int                `json:"version"`
	Metadata        cdxMetadata        `json:"metadata"`
	Components      []cdxComponent     `json:"components"`
	Compositions    []cdxComposition   `json:"compositions,omitempty"`
	Vulnerabilities []cdxVulnerability `json:"vulnerabilities"`
}

type cdxMetadata struct {
	Timestamp string   `json:"timestamp"`
	Tools     cdxTools `json:"tools"`
}

type cdxTools struct {
	Components []cdxComponent `json:"components"`
}

type cdxComponent struct {
	Type       string        `json:"type"`
	Ref        string        `json:"bom-ref,omitempty"`
	Name       string        `json:"name"`
	Version    string        `json:"version,omitempty"`
	Hashes     []cdxHash     `json:"hashes,omitempty"`
	Properties []cdxProperty `json:"properties,omitempty"`
}

type cdxHash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type cdxProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type cdxComposition struct {
	Aggregate  string   `json:"aggregate"`
	Assemblies []string `json:"assemblies"`
}

type cdxVulnerability struct {
	Ref            string        `json:"bom-ref"`
	ID             string        `json:"id"`
	Source         cdxSource     `json:"source"`
	Ratings        []cdxRating   `json:"ratings"`
	CWEs           []int         `json:"cwes,omitempty"`
	Description    string        `json:"description"`
	Detail         string        `json:"detail"`
	Recommendation string        `json:"recommendation"`
	Affects        []cdxAffected `json:"affects"`
	Properties     []cdxProperty `json:"properties"`
}

type cdxSource struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type cdxRating struct {
	Source   cdxSource `json:"source"`
	Score    float64   `json:"score"`
	Severity string    `json:"severity"`
	Method   string    `json:"method"`
}

type cdxAffected struct {
	Ref string `json:"ref"`
}

// cavraSource is who rates.
var cavraSource = cdxSource{Name: "CAVRA", URL: "https://github.com/cavra/cavra"}

// WriteCycloneDX writes the artifacts as the components of a CycloneDX 1.6 bill
// of materials, and each rule that was met as a vulnerability that affects them.
// What was not looked at is a composition that is not complete. The serial
// number is derived from the content, so that the same scan is the same bill.
func WriteCycloneDX(w io.Writer, r *schema.Report, rules Catalogue) error {
	bom := cdxBOM{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: cdxMetadata{Timestamp: r.FinishedAt.String(), Tools: cdxTools{cdxPrograms(r)}},
		// Empty lists say that there is nothing; null would say nothing.
		Components: []cdxComponent{}, Vulnerabilities: []cdxVulnerability{},
	}
	serial := sha256.New()
	whole, partial := []string{}, []string{}
	all := subjects(r, rules)
	for i, a := range all {
		c := cdxFile(a, i)
		bom.Components = append(bom.Components, c)
		if a.Coverage.Complete {
			whole = append(whole, c.Ref)
		} else {
			partial = append(partial, c.Ref)
		}
		_, _ = fmt.Fprintf(serial, "%q %s %s\n", a.Path, a.Digest, r.FinishedAt) // a hash never fails
	}
	for _, c := range []cdxComposition{{"complete", whole}, {"incomplete", partial}} {
		if len(c.Assemblies) > 0 {
			bom.Compositions = append(bom.Compositions, c)
		}
	}
	bom.SerialNumber = uuid(serial.Sum(nil))
	bom.Vulnerabilities = append(bom.Vulnerabilities, cdxMet(all, rules)...)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(bom); err != nil {
		return fmt.Errorf("write CycloneDX report: %w", err)
	}
	return nil
}

// uuid spells the first bytes of a digest as a UUID of version 8 (RFC 9562).
func uuid(sum []byte) string {
	b := [16]byte(sum)
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func cdxPrograms(r *schema.Report) []cdxComponent {
	out := []cdxComponent{{
		Type: "application", Name: "CAVRA", Version: r.Tool.Version,
		Properties: []cdxProperty{{"cavra:ruleset:version", r.Ruleset.Version}, {"cavra:ruleset:digest", string(r.Ruleset.Digest)}},
	}}
	for _, s := range r.Tool.Scanners {
		out = append(out, cdxComponent{Type: "application", Name: s.Name, Version: s.Version, Hashes: cdxDigest(s.Digest)})
	}
	return out
}

func cdxDigest(d predicate.Digest) []cdxHash {
	if d == "" {
		return nil
	}
	return []cdxHash{{"SHA-256", d.Hex()}}
}

// plainFormats are formats of files that are no models by themselves.
var plainFormats = map[string]bool{
	"text": true, "json": true, "csv": true, "png": true, "jpeg": true, "gif": true, "webp": true, "empty": true, "unknown": true, "python": true,
}

func cdxFile(a schema.Artifact, i int) cdxComponent {
	kind := "machine-learning-model"
	if plainFormats[a.Format] {
		kind = "file"
	}
	var hashes []cdxHash
	if a.Format != wholeFormat {
		hashes = cdxDigest(a.Digest)
	}
	return cdxComponent{
		Type: kind, Ref: "artifact-" + strconv.Itoa(i), Name: a.Path, Hashes: hashes,
		Properties: []cdxProperty{
			{"cavra:format", a.Format}, {"cavra:verdict", string(a.Verdict)}, {"cavra:score", strconv.Itoa(a.Score)},
			{"cavra:size", strconv.FormatInt(a.Size, 10)}, {"cavra:coverage:complete", strconv.FormatBool(a.Coverage.Complete)},
		},
	}
}

// cdxMet lists the rules that were met, ascending by id, with what they affect.
func cdxMet(all []schema.Artifact, rules Catalogue) []cdxVulnerability {
	met, index := metRules(all, rules)
	out := make([]cdxVulnerability, len(met))
	for i, m := range met {
		rule := ruleOf(rules, m.ID)
		out[i] = cdxVulnerability{
			Ref: "rule-" + m.ID, ID: m.ID, Source: cavraSource,
			Ratings:     []cdxRating{{Source: cavraSource, Score: float64(rule.Score) / 10, Severity: string(rule.Severity), Method: "other"}},
			Description: rule.Title, Detail: rule.Description, Recommendation: rule.Fix,
			Properties: []cdxProperty{{"cavra:class", rule.Class}},
		}
		for _, ref := range rule.References {
			number, isCWE := strings.CutPrefix(ref, "CWE-")
			if n, err := strconv.Atoi(number); isCWE && err == nil {
				out[i].CWEs = append(out[i].CWEs, n)
				continue
			}
			out[i].Properties = append(out[i].Properties, cdxProperty{"cavra:reference", ref})
		}
	}
	for i, a := range all {
		ref := "artifact-" + strconv.Itoa(i)
		for _, f := range a.Findings {
			v := &out[index[f.Rule]]
			if n := len(v.Affects); n == 0 || v.Affects[n-1].Ref != ref {
				v.Affects = append(v.Affects, cdxAffected{ref})
			}
		}
	}
	return out
}
