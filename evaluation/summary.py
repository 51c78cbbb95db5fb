"""Figures of what runs leave behind in JSON, over all seeds: they need neither weights nor data."""

from matplotlib import rc_context

from evaluation.runs import group_runs, load_runs, scale_and_plain
from evaluation.style import COLOURS, LINES, STYLE, new_figure, plain_log, save
from models import ARCHITECTURES


def draw(folders, path):
    """Draw every figure that the runs in ``folders`` are enough for into the folder ``path``; return the files."""
    groups, files = [group for group in group_runs(load_runs(*folders)) if not group["augment"]], []
    path.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        for title in dict.fromkeys(group.title for group in groups):
            of_data = [group for group in groups if group.title == title]
            for kind, figure in (("factors", draw_factors(of_data)), ("samples", draw_samples(of_data))):
                if figure is not None:
                    files += save(figure, path / f"{title.split()[0]}_{kind}", pdf=True)
    return files


def draw_factors(groups):
    """The paper's Figure 3 left: RMSE and ESE against the upscaling factor, of the scale nets and of plain nets.

    Where several plain nets were trained, that of the scale net's sweep (width, epochs, samples) is drawn; without a
    scale net, all nets are. None where no net was tested by factor.
    """
    tested = scale_and_plain(groups) or [group for group in groups if group.values("scores", "Scale", "by_factor")]
    if not tested:
        return None
    figure = new_figure(2.4)
    panels = figure.subplots(1, 2)
    for axes, measure in zip(panels, ("rmse", "ese"), strict=True):
        for group in tested:
            draw_band(axes, group, *by_factor(group, "scores", measure))
        axes.set(xlabel="upscaling factor", ylabel={"rmse": "RMSE / standard deviation", "ese": "ESE"}[measure])
    factors, still = by_factor(tested[0], "persistence", "rmse")
    panels[0].plot(factors, [values[0] for values in still], ":", color="black", label="persistence")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def by_factor(group, what, measure):
    """Factors in ascending order and, for each, the values of a measure over the seeds."""
    factors = sorted(group.runs[0][what]["Scale"]["by_factor"], key=float)
    values = [group.values(what, "Scale", "by_factor", factor, measure) for factor in factors]
    return [float(factor) for factor in factors], values


def draw_samples(groups):
    """Test RMSE against the number of training windows; None where no net was trained on several numbers of them."""
    figure = new_figure(2.4, width=4.5)
    axes = figure.subplots()
    drawn = 0
    for architecture in ARCHITECTURES:
        of_architecture = [group for group in groups if group["architecture"] == architecture]
        for key in dict.fromkeys(map(but_fraction, of_architecture)):
            same = [group for group in of_architecture if but_fraction(group) == key]
            same = sorted((group for group in same if group.values("train_windows")), key=windows)
            if len(same) > 1:
                draw_band(
                    axes, same[-1], [windows(g) for g in same], [g.values("scores", "test", "rmse") for g in same]
                )
                drawn += 1
    if not drawn:
        return None
    plain_log(axes.xaxis)
    axes.set(xlabel="training windows", ylabel="RMSE / standard deviation")
    figure.legend(loc="outside right upper")
    return figure


def windows(group):
    return group.runs[0]["train_windows"]


def but_fraction(group):
    """What the nets of one curve share: all that a sweep shares except the fraction of the training windows."""
    names = ("symmetry", "width", "num_epoch", "amp", "variant", *group.options)
    return group.data, tuple(group["frame"]), *(group[name] for name in names)


def draw_band(axes, group, x, values):
    """The mean over the seeds, in the colour of the symmetry and the line of the architecture; min to max as a band."""
    name = "plain" if group["symmetry"] == "None" else group["symmetry"]
    colour = COLOURS[group["symmetry"]]
    means = [sum(v) / len(v) for v in values]
    axes.plot(x, means, LINES[group["architecture"]], marker=".", color=colour, label=f"{name} {group['architecture']}")
    axes.fill_between(x, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2, linewidth=0)
