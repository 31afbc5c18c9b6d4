package rdata

import "strings"

func set(names string) map[string]bool {
	m := make(map[string]bool)
	for n := range strings.FieldsSeq(names) {
		m[n] = true
	}
	return m
}

var (
	// strict are functions whose names mean nothing else: they run programs or
	// native code, or fetch and run what is elsewhere.
	strict = set(`system system2 shell.exec dyn.load library.dynam download.file socketConnection serverSocket install.packages sys.source
		Sys.setenv file.remove url.show browseURL`)
	// loose are names that are those of variables as well; a call of one counts.
	loose = set(`shell pipe source url fifo unlink parse str2lang str2expression readRDS load unserialize attach loadNamespace
		requireNamespace socketSelect make.socket writeLines writeBin file.rename file.copy Sys.chmod reg.finalizer setHook
		makeActiveBinding delayedAssign`)
	// apply are functions that call another by its name.
	apply = set(`do.call match.fun get get0 mget getFunction getExportedValue getFromNamespace getAnywhere Reduce Map Filter lapply sapply vapply
		mapply Recall Vectorize eval evalq`)
	// of leads to a function of a package.
	of = set(`:: :::`)
	// altrep are representations that R itself has, besides those that map a file.
	altrep = set(`compact_intseq compact_realseq deferred_string wrap_integer wrap_real wrap_logical wrap_complex wrap_raw wrap_string wrap_list`)
	// hooks are names by which R calls a function of the workspace.
	hooks = set(`.First .Last .First.sys .onLoad .onAttach .onUnload .Last.lib .Rprofile`)
	// packages are R's own, its recommended ones, and the ones whose models are
	// saved the most.
	packages = set(`base compiler datasets graphics grDevices grid methods parallel splines stats stats4 tcltk tools utils
		boot class cluster codetools foreign KernSmooth lattice MASS Matrix mgcv nlme nnet rpart spatial survival
		randomForest e1071 glmnet caret gbm xgboost lightgbm ranger party partykit earth kernlab lme4 ggplot2 dplyr tibble tidyr purrr rlang
		vctrs recipes parsnip workflows hardhat tidymodels rsample yardstick tune dials data.table stringr lubridate forecast prophet zoo xts
		pls ipred mlr mlr3 ROCR pROC h2o keras tensorflow torch reticulate brms rstan rstanarm car effects emmeans broom quantreg robustbase
		VGAM gam gamlss ada adabag C50 Cubist klaR mda mvtnorm pamr proxy kknn sandwich lmtest plm magrittr pillar cli glue bit bit64 Rcpp R6`)
)

// calling gathers what a call is of, argument by argument.
type calling struct {
	s    *scan
	call bool
	kind int
	// head is the function's name, and n how many parts were seen.
	head string
	n    int
}

// add takes the next part of a call: the function first.
func (c *calling) add(v value) {
	c.n++
	if !c.call || !c.s.r.Ok() {
		return
	}
	switch {
	case c.n == 1:
		c.head = v.name
		if v.kind == tSymbol || v.kind == tStrings {
			c.s.judgeName(v, strict)
			c.s.judgeName(v, loose)
		}
	case v.kind == tSymbol && of[c.head] && c.n == 3:
		c.s.judgeName(v, strict)
		c.s.judgeName(v, loose)
	case v.kind == tSymbol, v.kind == tStrings && (apply[c.head] || of[c.head]):
		c.s.judgeName(v, strict)
	}
}

func (s *scan) judgeName(v value, names map[string]bool) {
	if names[v.name] {
		s.v.Found(ruleCall, ID, v.at, v.name)
	}
}

func (s *scan) judgePackage(v value) {
	switch {
	case !s.r.Ok():
	case v.kind == tPersistent:
		s.v.Found(rulePackage, ID, v.at, "a persistent name", v.name)
	case !packages[strings.TrimPrefix(v.name, "package:")]:
		s.v.Found(rulePackage, ID, v.at, v.name)
	}
}

func (s *scan) judgeHook(tag value) {
	if s.r.Ok() && hooks[tag.name] {
		s.v.Found(ruleHook, ID, tag.at, tag.name)
	}
}

// judgeDelayed judges a closure, or a promise, whose first part is its value. The
// variables of a function's environment may be promises in honest files; that an
// object is one is what loading it evaluates (CVE-2024-27322).
func (s *scan) judgeDelayed(v, first value) {
	switch {
	case !s.r.Ok():
	case v.kind == tPromise && first.kind == tUnbound && !v.bound:
		s.v.Found(rulePromise, ID, v.at)
	case v.kind == tPromise && first.kind == tUnbound && !s.promise:
		s.promise = true
		s.v.Found(ruleCode, ID, v.at, "a promise of a variable")
	case v.kind == tClosure && !s.closure:
		s.closure = true
		s.v.Found(ruleCode, ID, v.at, "a function")
	}
}

func (s *scan) noteBytecode(at int64) {
	if !s.bytecode {
		s.bytecode = true
		s.v.Found(ruleCode, ID, at, "bytecode")
	}
}

func (s *scan) notePointer(at int64) {
	if !s.pointer {
		s.pointer = true
		s.v.Found(rulePointer, ID, at)
	}
}
