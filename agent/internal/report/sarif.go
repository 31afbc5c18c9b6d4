package report

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/finding"
)

// The members of SARIF 2.1.0 (OASIS Standard, 27 March 2020) that a scan fills.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool        sarifTool         `json:"tool"`
	Invocations []sarifInvocation `json:"invocations"`
	Artifacts   []sarifArtifact   `json:"artifacts"`
	Results     []sarifResult     `json:"results"`
	ColumnKind  string            `json:"columnKind"`
}

type sarifTool struct {
	Driver     sarifComponent   `json:"driver"`
	Extensions []sarifComponent `json:"extensions,omitempty"`
}

type sarifComponent struct {
	Name           string      `json:"name"`
	Version        string      `json:"version,omitempty"`
	InformationURI string      `json:"informationUri,omitempty"`
	Rules          []sarifRule `json:"rules,omitempty"`
}

type sarifRule struct {
	ID               string         `json:"id"`
	ShortDescription sarifText      `json:"shortDescription"`
	FullDescription  sarifText      `json:"fullDescription"`
	Help             sarifText      `json:"help"`
	Default          sarifDefault   `json:"defaultConfiguration"`
	Properties       map[string]any `json:"properties,omitempty"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifDefault struct {
	Level string `json:"level"`
}

type sarifInvocation struct {
	ExecutionSuccessful bool                `json:"executionSuccessful"`
	StartTimeUTC        string              `json:"startTimeUtc"`
	EndTimeUTC          string              `json:"endTimeUtc"`
	Notifications       []sarifNotification `json:"toolExecutionNotifications,omitempty"`
}

type sarifNotification struct {
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations,omitempty"`
}

type sarifArtifact struct {
	Location   sarifURI          `json:"location"`
	Length     int64             `json:"length"`
	Hashes     map[string]string `json:"hashes,omitempty"`
	Properties map[string]any    `json:"properties"`
}

type sarifURI struct {
	URI   string `json:"uri"`
	Index *int   `json:"index,omitempty"`
}

type sarifResult struct {
	RuleID       string            `json:"ruleId"`
	RuleIndex    int               `json:"ruleIndex"`
	Level        string            `json:"level"`
	Message      sarifText         `json:"message"`
	Locations    []sarifLocation   `json:"locations"`
	Fingerprints map[string]string `json:"partialFingerprints,omitempty"`
	// Baseline is "unchanged" for what an earlier report has.
	Baseline     string             `json:"baselineState,omitempty"`
	Suppressions []sarifSuppression `json:"suppressions,omitempty"`
	Properties   map[string]any     `json:"properties"`
}

type sarifSuppression struct {
	Kind          string `json:"kind"`
	Status        string `json:"status"`
	Justification string `json:"justification"`
}

type sarifLocation struct {
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact sarifURI     `json:"artifactLocation"`
	Region   *sarifRegion `json:"region,omitempty"`
}

type sarifRegion struct {
	ByteOffset int64 `json:"byteOffset"`
	ByteLength int64 `json:"byteLength"`
}

type sarifLogical struct {
	FullyQualifiedName string `json:"fullyQualifiedName"`
	Kind               string `json:"kind"`
}

// WriteSARIF writes the findings as one SARIF 2.1.0 run. What was not looked at
// is a notification of the invocation, which then is not successful.
func WriteSARIF(w io.Writer, r *schema.Report, rules Catalogue) error {
	all := subjects(r, rules)
	met, index := metRules(all, rules)
	run := sarifRun{
		Tool: sarifTool{Driver: sarifComponent{
			Name: "CAVRA", Version: r.Tool.Version, InformationURI: "https://github.com/cavra/cavra", Rules: met,
		}},
		Invocations: []sarifInvocation{invocation(r)},
		Artifacts:   make([]sarifArtifact, 0, len(all)),
		Results:     []sarifResult{},
		ColumnKind:  "unicodeCodePoints",
	}
	for _, s := range r.Tool.Scanners {
		run.Tool.Extensions = append(run.Tool.Extensions, sarifComponent{Name: s.Name, Version: s.Version})
	}
	for i, a := range all {
		run.Artifacts = append(run.Artifacts, sarifFile(a))
		for _, f := range a.Findings {
			run.Results = append(run.Results, result(a, f, i, index[f.Rule]))
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	log := sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
	if err := enc.Encode(log); err != nil {
		return fmt.Errorf("write SARIF report: %w", err)
	}
	return nil
}

// metRules lists the rules that were met, in order of id, and their places.
func metRules(artifacts []schema.Artifact, rules Catalogue) ([]sarifRule, map[string]int) {
	var ids []string
	for _, a := range artifacts {
		for _, f := range a.Findings {
			ids = append(ids, f.Rule)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	out, index := make([]sarifRule, 0, len(ids)), make(map[string]int, len(ids))
	for i, id := range ids {
		index[id] = i
		rule := ruleOf(rules, id)
		out = append(out, sarifRule{
			ID: id, ShortDescription: sarifText{rule.Title}, FullDescription: sarifText{rule.Description}, Help: sarifText{rule.Fix},
			Default: sarifDefault{level(rule.Severity)},
			// The property that code hosts read as a severity from 0 to 10.
			Properties: map[string]any{"security-severity": fmt.Sprintf("%.1f", float64(rule.Score)/10), "tags": append([]string{"security", rule.Class}, rule.References...)},
		})
	}
	return out, index
}

// ruleOf looks a rule up; one that is not in the catalogue has its id for words.
func ruleOf(rules Catalogue, id string) finding.Rule {
	if rule, ok := rules.Rule(id); ok {
		return rule
	}
	return finding.Rule{ID: id, Severity: predicate.Medium, Title: id, Description: id, Fix: id}
}

func level(s predicate.Severity) string {
	switch s {
	case predicate.Critical, predicate.High:
		return "error"
	case predicate.Medium:
		return "warning"
	}
	return "note"
}

func invocation(r *schema.Report) sarifInvocation {
	v := sarifInvocation{ExecutionSuccessful: r.Summary.Complete, StartTimeUTC: r.StartedAt.String(), EndTimeUTC: r.FinishedAt.String()}
	for i, a := range r.Artifacts {
		if a.Coverage.Complete {
			continue
		}
		words := a.Message
		if words == "" {
			words = strings.Join(gapLines(a.Coverage), "; ")
		}
		v.Notifications = append(v.Notifications, sarifNotification{
			Level: "warning", Message: sarifText{"Not fully looked at: " + words},
			Locations: []sarifLocation{{Physical: sarifPhysical{Artifact: at(a.Path, i)}}},
		})
	}
	for _, p := range r.Problems {
		v.Notifications = append(v.Notifications, sarifNotification{Level: "error", Message: sarifText{"The listing is not complete: " + p}})
	}
	return v
}

func sarifFile(a schema.Artifact) sarifArtifact {
	out := sarifArtifact{
		Location: sarifURI{URI: uri(a.Path)}, Length: a.Size,
		Properties: map[string]any{"format": a.Format, "verdict": a.Verdict, "score": a.Score, "complete": a.Coverage.Complete},
	}
	if a.Digest != "" && a.Format != wholeFormat {
		out.Hashes = map[string]string{"sha-256": a.Digest.Hex()}
	}
	return out
}

func result(a schema.Artifact, f schema.Finding, artifact, rule int) sarifResult {
	words := f.Title
	if len(f.Evidence) > 0 {
		words += ": " + strings.Join(f.Evidence, ", ")
	}
	place := sarifLocation{Physical: sarifPhysical{Artifact: at(a.Path, artifact)}}
	if f.Location.Member == "" {
		place.Physical.Region = &sarifRegion{ByteOffset: f.Location.Offset}
	} else {
		place.Logical = []sarifLogical{{FullyQualifiedName: f.Location.Member, Kind: "member"}}
	}
	out := sarifResult{
		RuleID: f.Rule, RuleIndex: rule, Level: level(f.Severity), Message: sarifText{words}, Locations: []sarifLocation{place},
		Properties: map[string]any{"severity": f.Severity, "class": f.Class, "offset": f.Location.Offset},
	}
	switch by := f.Accepted; {
	case by == nil:
	case by.By == schema.ByBaseline:
		out.Baseline = "unchanged"
	default:
		out.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: by.Reason}}
	}
	if a.Digest != "" {
		// The finding's identity: the bytes, the rule and the kind of place.
		out.Fingerprints = map[string]string{"cavraFinding/v1": a.Digest.Hex() + "/" + f.Rule + "/" + f.Location.Class}
	}
	return out
}

func at(path string, index int) sarifURI { return sarifURI{URI: uri(path), Index: &index} }

// uri writes a path as a URI reference (RFC 3986): absolute paths as file URIs,
// others relative.
func uri(path string) string {
	u := url.URL{Path: path}
	if strings.HasPrefix(path, "/") {
		u.Scheme = "file"
	}
	return u.String()
}
