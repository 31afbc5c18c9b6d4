package admit

import (
	"time"

	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
)

// keep writes the rows of an accepted statement.
func keep(b *row.Batch, receipt *row.Receipt, p predicate.Predicate, envelope []byte) {
	l := p.Place()
	b.Statements = append(b.Statements, row.Statement{
		Tenant: l.Tenant, Agent: l.Agent, Epoch: l.Epoch, Sequence: l.Sequence,
		Digest: receipt.Digest, Previous: l.Previous.Hex(), KeyID: l.KeyID.Hex(),
		Type: predicate.Short(p.PredicateType()), Outcome: receipt.Outcome,
		SignedAt: row.Time(l.SignedAt), ReceivedAt: receipt.ReceivedAt,
		Topic: receipt.Topic, Partition: receipt.Partition, Offset: receipt.Offset, Envelope: envelope,
	})
	switch p := p.(type) {
	case *predicate.Scan:
		keepScan(b, receipt, p)
	case *predicate.Inventory:
		keepInventory(b, receipt, p)
	case *predicate.Heartbeat:
		report := agentReport(receipt, p)
		report.AgentVersion, report.RulesetVersion = p.AgentVersion, p.RulesetVersion
		report.Sandbox = words(p.Sandbox)
		for _, s := range p.Plugins {
			report.Plugins = append(report.Plugins, row.Plugin{Name: s.Name, Version: s.Version, Digest: s.Digest.Hex()})
		}
		report.SpoolStatements, report.SpoolBytes = p.SpoolStatements, p.SpoolBytes
		report.Privacy = string(p.Privacy)
		report.StartedAt = row.Time(p.StartedAt)
		if p.LastRoundAt != nil {
			at := row.Time(*p.LastRoundAt)
			report.LastRoundAt = &at
		}
		b.AgentReports = append(b.AgentReports, report)
	case *predicate.Gap:
		report := agentReport(receipt, p)
		report.GapCause, report.GapFrames, report.GapBytes = string(p.Cause), p.Frames, p.Bytes
		b.AgentReports = append(b.AgentReports, report)
	case *predicate.Epoch:
		report := agentReport(receipt, p)
		report.EpochCause = string(p.Cause)
		b.AgentReports = append(b.AgentReports, report)
	}
}

func agentReport(receipt *row.Receipt, p predicate.Predicate) row.AgentReport {
	l := p.Place()
	return row.AgentReport{
		Tenant: l.Tenant, Agent: l.Agent, Epoch: l.Epoch, Sequence: l.Sequence, Statement: receipt.Digest,
		Type: predicate.Short(p.PredicateType()), Sandbox: []string{}, Plugins: []row.Plugin{},
		StartedAt: time.UnixMilli(0).UTC(), SignedAt: row.Time(l.SignedAt), ReceivedAt: receipt.ReceivedAt,
	}
}

func keepScan(b *row.Batch, receipt *row.Receipt, s *predicate.Scan) {
	artifact, at := row.Artifact(s.Artifact.Digest), row.Time(s.FinishedAt)
	b.Scans = append(b.Scans, row.Scan{
		Tenant: s.Tenant, Artifact: artifact, Statement: receipt.Digest, Agent: s.Agent, Epoch: s.Epoch, Sequence: s.Sequence,
		Kind: string(s.Artifact.Kind), Format: s.Artifact.Format, Size: s.Artifact.Size, Files: s.Artifact.Files,
		Verdict: string(s.Verdict), Score: uint8(s.Score), Complete: s.Coverage.Complete,
		BytesParsed: s.Coverage.BytesParsed, BytesInert: s.Coverage.BytesInert, BytesUnread: s.Coverage.BytesUnread,
		Findings: uint64(len(s.Findings)), FindingsOmitted: s.FindingsOmitted,
		Imports: uint64(len(s.Imports)), ImportsOmitted: s.ImportsOmitted,
		RulesetVersion: s.RulesetVersion, RulesetDigest: s.RulesetDigest.Hex(), Sandbox: words(s.Sandbox),
		ScannedAt: at, ReceivedAt: receipt.ReceivedAt,
	})
	for i := range s.Findings {
		f := &s.Findings[i]
		b.Findings = append(b.Findings, row.Finding{
			Tenant: s.Tenant, Artifact: artifact, Rule: f.Rule, Location: f.Location, Statement: receipt.Digest,
			Class: f.Class, Severity: string(f.Severity), Count: f.Count, ScannedAt: at, ReceivedAt: receipt.ReceivedAt,
		})
	}
	for i := range s.Imports {
		m := &s.Imports[i]
		b.Imports = append(b.Imports, row.Import{
			Tenant: s.Tenant, Artifact: artifact, Module: row.Name(m.Module), Name: row.Name(m.Name), How: string(m.How),
			Judged: m.Judged, Statement: receipt.Digest, ScannedAt: at, ReceivedAt: receipt.ReceivedAt,
		})
	}
}

func keepInventory(b *row.Batch, receipt *row.Receipt, v *predicate.Inventory) {
	root, at := row.Name(v.Scope.Root), row.Time(v.ListedAt)
	b.Inventories = append(b.Inventories, row.Inventory{
		Tenant: v.Tenant, Agent: v.Agent, Epoch: v.Epoch, Sequence: v.Sequence, Registry: v.Scope.Registry, Root: root,
		Round: v.Round, Part: v.Part, Parts: v.Parts, Complete: v.Complete, References: uint64(len(v.References)),
		Statement: receipt.Digest, ListedAt: at, ReceivedAt: receipt.ReceivedAt,
	})
	for i := range v.References {
		ref := &v.References[i]
		out := row.Reference{
			Tenant: v.Tenant, Agent: v.Agent, Registry: v.Scope.Registry, Root: root, Path: row.Name(ref.Path),
			Artifact: row.Artifact(ref.Digest), Bundle: row.Artifact(ref.Bundle), Size: ref.Size, Problem: string(ref.Problem),
			Round: v.Round, Statement: receipt.Digest, ListedAt: at, ReceivedAt: receipt.ReceivedAt,
		}
		if ref.Name != nil {
			out.Name = row.Name(*ref.Name)
		}
		if ref.Version != nil {
			out.Version = row.Name(*ref.Version)
		}
		b.References = append(b.References, out)
	}
}

func words(layers []predicate.Layer) []string {
	out := make([]string, len(layers))
	for i, l := range layers {
		out[i] = string(l)
	}
	return out
}
