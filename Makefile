# Needs nothing but python3: nox comes from a private environment, and brings the rest.
.PHONY: demo test

demo: .venv/bin/nox
	.venv/bin/nox -s demo

test: .venv/bin/nox
	.venv/bin/nox -s tests tests_openai2 tests_frameworks tests_frameworks_openai2 \
		tests_frameworks_autogen02 --error-on-missing-interpreters \
		--force-python "$$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

.venv/bin/nox:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"asynccache needs Python 3.11 or later, and python3 is %d.%d." % sys.version_info[:2])'
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check "nox>=2025.5.1"
