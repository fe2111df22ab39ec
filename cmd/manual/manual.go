package manual

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Page is a manual page.
type Page struct {
	Name, Section string // such as "pgrex.yaml" and "5"
	Markdown      string // as go-md2man takes it, without the title line
}

// Manual is what a program's manual has besides its commands' own help.
type Manual struct {
	Title      string
	Files      string // Markdown, at the end of the program's own page
	ExitStatus string // of commands whose help tells none
	Pages      func() ([]Page, error)
}

// Command is the hidden command that writes the manual of its root into a folder. The pages' date is
// SOURCE_DATE_EPOCH's, if that is set.
func (m Manual) Command() *cobra.Command {
	return &cobra.Command{
		Use: "manual FOLDER", Short: "Write the manual pages into a folder", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			if err := m.tree(cmd.Root(), arguments[0]); err != nil {
				return err
			}
			if m.Pages == nil {
				return nil
			}
			pages, err := m.Pages()
			for _, p := range pages {
				err = errors.Join(err, m.write(arguments[0], p))
			}
			return err
		},
	}
}

func (m Manual) write(folder string, p Page) error {
	date, err := pageDate()
	if err != nil {
		return err
	}
	head := fmt.Sprintf("%% %q %q %q %q %q\n", strings.ToUpper(p.Name), p.Section, date, m.Title, m.Title)
	//nolint:gosec // for everybody to read
	return os.WriteFile(filepath.Join(folder, p.Name+"."+p.Section), []byte(minus(md2man.Render([]byte(head+p.Markdown)))), 0o644)
}

// minus has each "-" of a page shown as the one that can be typed: a bare one is a hyphen to groff.
func minus(page []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, ".") {
			line = strings.ReplaceAll(strings.ReplaceAll(line, `\-`, "-"), "-", `\-`)
		}
		b.WriteString(line)
	}
	return b.String()
}

// tree writes the pages of a command and of those below it.
func (m Manual) tree(cmd *cobra.Command, folder string) error {
	if cmd.HasParent() && !cmd.IsAvailableCommand() {
		return nil
	}
	for _, c := range cmd.Commands() {
		if err := m.tree(c, folder); err != nil {
			return err
		}
	}
	text, err := m.page(cmd)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.CommandPath(), err)
	}
	return m.write(folder, Page{pageName(cmd), "1", text})
}

// exitStatus begins the last paragraph of a command's help, which tells its exit statuses.
const exitStatus = "\n\nExit status: "

// page is a command's page as go-md2man takes it.
func (m Manual) page(cmd *cobra.Command) (string, error) {
	text, status, _ := strings.Cut(cmp.Or(cmd.Long, cmd.Short), exitStatus)
	status = cmp.Or(status, m.ExitStatus)
	if !cmd.HasSubCommands() && (status == "" || cmd.Example == "") {
		return "", errors.New("its help needs exit statuses and examples")
	}
	var b strings.Builder
	section := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "# %s\n%s\n\n", name, strings.TrimRight(text, "\n"))
		}
	}
	section("NAME", pageName(cmd)+` \- `+markdown(cmd.Short))
	synopsis := "**" + markdown(cmd.UseLine()) + "**"
	if cmd.HasSubCommands() {
		synopsis += " *COMMAND*"
	}
	section("SYNOPSIS", synopsis)
	section("DESCRIPTION", markdown(text))
	section("OPTIONS", options(cmd))
	section("EXIT STATUS", markdown(status))
	if !cmd.HasParent() {
		section("FILES", m.Files)
	}
	section("EXAMPLES", indented(cmd.Example))
	section("SEE ALSO", seeAlso(cmd))
	return b.String(), nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// pageDate is the date of SOURCE_DATE_EPOCH (reproducible-builds.org), or today's.
func pageDate() (string, error) {
	at := time.Now()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return "", fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		at = time.Unix(seconds, 0)
	}
	return at.UTC().Format(time.DateOnly), nil
}

func options(cmd *cobra.Command) string {
	var b strings.Builder
	cmd.InitDefaultHelpFlag()
	cmd.Flags().VisitAll(func(f *pflag.Flag) { // also those of the commands above it
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		if f.Shorthand != "" {
			fmt.Fprintf(&b, "**-%s**, ", f.Shorthand)
		}
		fmt.Fprintf(&b, "**--%s**", f.Name)
		if value != "" {
			fmt.Fprintf(&b, " *%s*", value)
		}
		fmt.Fprintf(&b, "\n: %s\n\n", markdown(Describe(f, usage)))
	})
	return b.String()
}

// Describe is a flag's help with its default.
func Describe(f *pflag.Flag, usage string) string {
	switch {
	case f.DefValue == "", f.DefValue == "0", f.DefValue == "[]", f.DefValue == "false", strings.Contains(usage, "(default"):
		return usage
	}
	return usage + " (default: " + f.DefValue + ")"
}

// indented is text that stays as it is.
func indented(text string) string {
	if text == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ")
}

func seeAlso(cmd *cobra.Command) string {
	var pages []string
	if cmd.HasParent() {
		pages = append(pages, pageName(cmd.Parent()))
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			pages = append(pages, pageName(c))
		}
	}
	for i, p := range pages {
		pages[i] = "**" + p + "**(1)"
	}
	return strings.Join(pages, ", ")
}

// markdown is plain text as Markdown that means the same. Lines that begin with two blanks stay as they are.
func markdown(text string) string {
	escape := strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "<", `\<`, "#", `\#`, "|", `\|`)
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "  ") {
			b.WriteString("  " + line)
		} else {
			b.WriteString(escape.Replace(line))
		}
	}
	return b.String()
}
