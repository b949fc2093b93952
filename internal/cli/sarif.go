package cli

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
)

// Where SARIF and this program are described.
const (
	sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	homePage    = "https://github.com/pgporter/pgporter"
)

// sarifLog is a report in SARIF 2.1.0 (OASIS, errata 01), as far as problems of files need it.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool sarifTool `json:"tool"`
	// ColumnKind says that columns count characters, not UTF-16's units.
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	Version        string      `json:"version"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               diag.Code `json:"id"`
	ShortDescription sarifText `json:"shortDescription"`
	FullDescription  sarifText `json:"fullDescription"`
	Help             sarifText `json:"help"`
	HelpURI          string    `json:"helpUri"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    diag.Code       `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	Physical sarifPhysical `json:"physicalLocation"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	// Region is nil for the whole file.
	Region *sarifRegion `json:"region,omitempty"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn"`
}

// sarifOf is a report on problems, with the kinds of those that were found as its rules.
func sarifOf(problems diag.Problems) sarifLog {
	driver := sarifDriver{Name: "pgporter", Version: command.Version, InformationURI: homePage, Rules: []sarifRule{}}
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	for _, p := range problems {
		rule := slices.IndexFunc(driver.Rules, func(r sarifRule) bool { return r.ID == p.Code })
		if rule < 0 {
			rule = len(driver.Rules)
			driver.Rules = append(driver.Rules, ruleOf(p.Code))
		}
		message := p.What
		if p.Want != "" {
			message += "; " + p.Want
		}
		at := sarifPhysical{Artifact: sarifArtifact{URI: uriOf(p.Pos.File)}}
		if p.Pos.Line > 0 {
			at.Region = &sarifRegion{StartLine: p.Pos.Line, StartColumn: max(p.Pos.Column, 1)}
		}
		run.Results = append(run.Results, sarifResult{RuleID: p.Code, RuleIndex: rule, Level: p.Severity.String(), Message: sarifText{message},
			Locations: []sarifLocation{{at}}})
	}
	run.Tool.Driver = driver
	return sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}}
}

func ruleOf(code diag.Code) sarifRule {
	kind, _ := diag.KindOf(code)
	text := sarifText{strings.Join(strings.Fields(kind.Text), " ")}
	return sarifRule{ID: code, ShortDescription: sarifText{kind.Title}, FullDescription: text, Help: text,
		HelpURI: homePage + "/blob/main/docs/problems.md#" + string(code)}
}

// uriOf is a file's URI: relative to the working directory for one that is below it, as those who show reports beside the sources
// want it.
func uriOf(file string) string {
	path := file
	if filepath.IsAbs(path) {
		if here, err := os.Getwd(); err == nil {
			if below, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(below) {
				path = below
			}
		}
	}
	uri := url.URL{Path: filepath.ToSlash(filepath.Clean(path))}
	if filepath.IsAbs(path) {
		uri.Scheme = "file"
	}
	return uri.String()
}
