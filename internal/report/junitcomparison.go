package report

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// The elements of JUnit's XML that Jenkins, GitLab and others read (junit-10.xsd of
// Jenkins' xunit-plugin, which has no version of its own).
type (
	junitSuites struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Suite    junitSuite
	}
	junitSuite struct {
		XMLName    xml.Name        `xml:"testsuite"`
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitTest     `xml:"testcase"`
		Out        string          `xml:"system-out"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitTest struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Error   *junitMessage `xml:"error"`
		Skipped *junitMessage `xml:"skipped"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnitComparison writes a comparison as a JUnit report: each row is a test case. A row
// that is slower by more than the threshold is a failure, as is behavior that changed, one that lost its number an
// error, and one that these runs cannot tell of is skipped.
func JUnitComparison(w io.Writer, c record.Changes) error {
	s := newTestSuite(c)
	head := record.NewSaved(c).Head
	verb := cmp.Or(s.verb, "compare")
	class := "unthunk." + strings.ReplaceAll(verb, " ", "-")
	suite := junitSuite{
		Name: "unthunk " + verb, Tests: len(s.tests), Failures: s.count(testFailed), Errors: s.count(testError),
		Skipped: s.count(testSkipped), Time: "0", Timestamp: head.Time.UTC().Format("2006-01-02T15:04:05"),
		Out: cells.Clean(s.finding),
	}
	for _, p := range s.properties {
		suite.Properties = append(suite.Properties, junitProperty{cells.Clean(p.name), cells.Clean(p.value)})
	}
	for _, t := range s.tests {
		text := cells.Clean(t.text)
		found := junitTest{Name: cells.Clean(t.name), Class: cells.Clean(cells.Join(".", class, s.of)), Time: "0"}
		switch t.outcome {
		case testFailed:
			found.Failure = &junitMessage{text, cmp.Or(t.kind, "slower"), text}
		case testError:
			found.Error = &junitMessage{text, cmp.Or(t.kind, "no number"), text}
		case testSkipped:
			found.Skipped = &junitMessage{text, "cannot tell", ""}
		default:
			found.Out = text
		}
		if found.Failure != nil && len(t.more) > 0 { // what CI systems show of one
			found.Failure.Text = cells.CleanLines(strings.Join(append([]string{text}, t.more...), "\n"))
		} else if len(t.more) > 0 {
			lines := append([]string{found.Out}, t.more...)
			if found.Out == "" {
				lines = t.more
			}
			found.Out = cells.CleanLines(strings.Join(lines, "\n"))
		}
		suite.Cases = append(suite.Cases, found)
	}
	all := junitSuites{Name: suite.Name, Tests: suite.Tests, Failures: suite.Failures, Errors: suite.Errors, Suite: suite}
	b, err := xml.MarshalIndent(all, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, b)
	}
	if err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	return nil
}
