package inventory

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// Read reads a file or a directory, and group_vars and host_vars beside the one and in the other. What is wrong comes as
// Problems; with an error among them the Inventory is good for finding more of them and nothing else. It is nil if there is
// no inventory at all: nothing can be opened, or nothing is YAML with a mapping.
func Read(path string) (*Inventory, diag.Problems) {
	var problems diag.Problems
	info, err := os.Stat(path)
	if err != nil {
		unreadableFile(&problems, path, "the inventory", err)
		return nil, problems
	}
	b := newBuilder(path, &problems)
	dir := filepath.Dir(path)
	found := false
	if info.IsDir() {
		dir = path
		found = b.directory(path, 0)
	} else {
		found = b.file(path)
	}
	if !found {
		return nil, problems
	}
	b.settle()
	if !b.inv.own {
		b.varsFiles(dir)
	}
	b.inv.digest = b.digest()
	return b.inv, problems
}

// ReadFrom reads an inventory from a stream, such as what `ansible-inventory --list` prints; name is what positions call it.
func ReadFrom(name string, r io.Reader) (*Inventory, diag.Problems) {
	data, err := io.ReadAll(io.LimitReader(r, maxRead+1))
	if err == nil && len(data) > maxRead {
		err = errTooLong
	}
	if err != nil {
		var problems diag.Problems
		unreadableFile(&problems, name, "the inventory", err)
		return nil, problems
	}
	return Parse(name, data)
}

// Parse reads an inventory from memory; name is what positions call it.
func Parse(name string, data []byte) (*Inventory, diag.Problems) {
	var problems diag.Problems
	b := newBuilder(name, &problems)
	b.sum(name, data)
	if !b.document(name, data) {
		return nil, problems
	}
	b.settle()
	b.inv.digest = b.digest()
	return b.inv, problems
}

// unreadableFile says why a file can't be read.
func unreadableFile(problems *diag.Problems, path, what string, err error) {
	why := err
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		why = failed.Err
	}
	problems.Errorf(diag.FileUnreadable, diag.Position{File: path}, "", "%s can't be read: %v", what, why)
}

// file reads a file of the inventory; false if it is none.
func (b *builder) file(path string) bool {
	data, err := b.read(path)
	if err != nil {
		unreadableFile(b.problems, path, "the inventory", err)
		return false
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && bytes.HasPrefix(data, []byte("#!")) && !isVault(data) {
		b.problems.Errorf(diag.InventoryFormat, diag.Position{File: path}, "its output on standard input: ansible-inventory -i FILE --list, and --inventory -",
			"this is a program, and an inventory's programs are not run")
		return false
	}
	return b.document(path, data)
}

// ignoredEndings are those of files that Ansible passes over in a directory (its INVENTORY_IGNORE_EXTS).
var ignoredEndings = []string{".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".ini", ".cfg", ".retry"}

// directory reads all files of a directory in the order of their names; false if none is an inventory.
func (b *builder) directory(path string, depth int) bool {
	entries, err := b.entries(path, depth)
	if err != nil {
		unreadableFile(b.problems, path, "the directory", err)
		return false
	}
	found, tried := false, 0
	for _, e := range entries {
		name, full := e.Name(), filepath.Join(path, e.Name())
		if strings.HasPrefix(name, ".") || name == "group_vars" || name == "host_vars" || name == "vars_plugins" {
			continue
		}
		if slices.ContainsFunc(ignoredEndings, func(ending string) bool { return strings.HasSuffix(name, ending) }) {
			if strings.HasSuffix(name, ".ini") {
				b.problems.Warnf(diag.FilePassedOver, diag.Position{File: full}, "YAML", "this file is passed over, as Ansible passes it over in a directory")
			}
			continue
		}
		tried++
		if info, err := os.Stat(full); err == nil && info.IsDir() {
			found = b.directory(full, depth+1) || found
			continue
		}
		found = b.file(full) || found
	}
	if tried == 0 {
		b.problems.Errorf(diag.InventoryEmpty, diag.Position{File: path}, "YAML files with groups and hosts", "the directory holds no inventory")
	}
	return found
}

var (
	sectionForm = regexp.MustCompile(`^\[[A-Za-z0-9_.-]+(:(vars|children|hosts))?\]\s*([#;].*)?$`)
	hostForm    = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]+(\s+[A-Za-z_][A-Za-z0-9_]*=\S.*)$`)
)

// iniLine tells in which line an inventory shows itself to be in INI format; 0 if it doesn't.
func iniLine(data []byte) int {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case sectionForm.MatchString(text), hostForm.MatchString(text):
			return number
		default:
			return 0
		}
	}
	return 0
}

func isVault(data []byte) bool { return bytes.HasPrefix(data, []byte("$ANSIBLE_VAULT")) }

// varsEndings are those that a file of variables may have, in the order in which the first that is there counts.
var varsEndings = []string{"", ".yml", ".yaml", ".json"}

// varsFiles reads group_vars and host_vars of a directory.
func (b *builder) varsFiles(dir string) {
	groups := map[string]owner{}
	for _, g := range b.inv.groups {
		groups[g.Name] = owner{part{group: g}, &g.fileVars, &g.written}
	}
	hosts := map[string]owner{}
	for _, h := range b.inv.hosts {
		hosts[h.Name] = owner{part{host: h}, &h.fileVars, &h.written}
	}
	b.varsOf(filepath.Join(dir, "group_vars"), "group", groups)
	b.varsOf(filepath.Join(dir, "host_vars"), "host", hosts)
}

// owner is whom a file of variables may be of.
type owner struct {
	part part
	// vars and written are where the variables go, by their names and as they are written.
	vars    *map[string]Value
	written *[]Value
}

// varsOf reads the variables of all whom a directory has a file or a directory for, and warns of what is for nobody.
func (b *builder) varsOf(dir, kind string, owners map[string]owner) {
	entries, err := b.entries(dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		unreadableFile(b.problems, dir, "the directory", err)
		return
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	for _, e := range entries {
		name := e.Name()
		if skipped(name) {
			continue
		}
		of, ending := name, ""
		if _, known := owners[of]; !known {
			ending = filepath.Ext(name)
			of = strings.TrimSuffix(name, ending)
		}
		whose, known := owners[of]
		full := filepath.Join(dir, name)
		rank := slices.Index(varsEndings, ending)
		if !known || rank < 0 {
			b.problems.Warnf(diag.VariablesUnused, diag.Position{File: full}, "the name of a "+kind+", with .yml, .yaml, .json or nothing after it",
				"these variables are nobody's: there is no %s %q", kind, strings.TrimSuffix(name, filepath.Ext(name)))
			continue
		}
		if first := slices.IndexFunc(varsEndings, func(ending string) bool { return names[of+ending] }); first < rank {
			b.problems.Warnf(diag.FilePassedOver, diag.Position{File: full}, "one of them", "this file is passed over, as in Ansible, since %s is there",
				filepath.Join(dir, of+varsEndings[first]))
			continue
		}
		*whose.vars = map[string]Value{}
		b.varsIn(full, whose, 1)
		whose.part.from = diag.Position{File: full}
		b.inv.parts = append(b.inv.parts, whose.part)
	}
}

// skipped tells names that Ansible passes over among files of variables: hidden ones and backups.
func skipped(name string) bool { return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") }

// varsIn reads a file of variables, or all below a directory in the order of their names, for their owner.
func (b *builder) varsIn(path string, of owner, depth int) {
	info, err := os.Stat(path)
	if err != nil {
		unreadableFile(b.problems, path, "the file", err)
		return
	}
	if !info.IsDir() {
		b.varsFile(path, of)
		return
	}
	entries, err := b.entries(path, depth)
	if err != nil {
		unreadableFile(b.problems, path, "the directory", err)
		return
	}
	for _, e := range entries {
		full, ending := filepath.Join(path, e.Name()), filepath.Ext(e.Name())
		if skipped(e.Name()) {
			continue
		}
		isDir := e.IsDir()
		if info, err := os.Stat(full); err == nil {
			isDir = info.IsDir()
		}
		if !slices.Contains(varsEndings, ending) || isDir && ending != "" {
			b.problems.Warnf(diag.FilePassedOver, diag.Position{File: full}, "a name that ends in .yml, .yaml, .json or nothing", "this is passed over, as in Ansible")
			continue
		}
		b.varsIn(full, of, depth+1)
	}
}

func (b *builder) varsFile(path string, of owner) {
	data, err := b.read(path)
	if err != nil {
		unreadableFile(b.problems, path, "the file", err)
		return
	}
	if isVault(data) {
		b.problems.Errorf(diag.VaultEncrypted, diag.Position{File: path}, "variables written out", "the file is encrypted with Ansible Vault, which is not supported")
		return
	}
	if !b.marked(path, data, maxMarks) {
		return
	}
	doc, problems := load(path, data)
	*b.problems = append(*b.problems, problems...)
	if doc == nil || doc.root == nil {
		return
	}
	root := doc.value(doc.root)
	switch root.Kind() {
	case Map:
	case Null:
		return
	default:
		b.problems.Errorf(diag.InventoryStructure, root.Pos(), "a mapping of variables", "the file is %s", root.Describe())
		return
	}
	*of.written = append(*of.written, root)
	for _, e := range root.Entries() {
		if e.Name == "ansible_group_priority" {
			b.problems.Warnf(diag.GroupKeyIgnored, e.Key.Pos(), "vars of the group in the inventory itself", "ansible_group_priority has no effect here, as in Ansible")
		}
		e.findSecrets()
		(*of.vars)[e.Name] = e.Value
	}
}
