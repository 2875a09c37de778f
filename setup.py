import setuptools
setuptools.setup() if int(setuptools.__version__.split(".")[0]) >= 77 else exit(f"meshcron needs setuptools 77 or newer, this is {setuptools.__version__}: python3 -m pip install 'setuptools>=77'")
