"""How Sphinx makes the site: `python -m mnist_helpers site`."""

from mnist_helpers.course import publish, site

project = "MNIST, honestly measured"
author = ""
copyright = "MIT licence"
repository = site.repository()
stamped = not repository.startswith(f"{publish.PLACEHOLDER}/")

extensions = ["myst_nb"]
root_doc = "index"
nb_execution_mode = "off"  # outputs are those that the notebooks store
nb_code_prompt_show = "Show the set-up cell"  # no other is folded
nb_code_prompt_hide = "Hide the set-up cell"
nb_merge_streams = True
myst_enable_extensions = ["attrs_block", "attrs_inline", "html_image"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_persistent": [],
    "max_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": [], "draw": []},  # without: room for what moves
    "footer_content_items": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if stamped:  # until then these buttons would lead nowhere
    html_theme_options |= {
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": publish.BRANCH,
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
