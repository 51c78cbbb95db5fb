"""How to get the raw files: one command per file, which goes on where it stopped if it is run again."""

import itertools

RBC_FILE = "rbc_data.pt"
RBC_ADDRESS = "https://s3-west.nrp-nautilus.io/tfnet/rbc_data.pt"
OCEAN_TRAIN = {  # file: west, east, south, north in degrees
    "atlantic.nc": (-44, -23, 25, 46),
    "indian.nc": (55, 76, -39, -18),
    "north_pacific.nc": (-174, -153, 5, 26),
}
OCEAN_TEST = {"south_pacific_test.nc": (-180, -159, -59, -40)}
JET_FILES = tuple(f"raw_data_{a}_{b}.pt" for a in range(1, 4) for b in range(1, 9))
# The registry of the_well 1.2.0 names these files; each of its splits has all of them.
WELL = "https://huggingface.co/datasets/polymathic-ai/rayleigh_benard/resolve/main"
RAYLEIGH, PRANDTL = ("1e6", "1e7", "1e8", "1e9", "1e10"), ("1e-1", "2e-1", "5e-1", "1", "2", "5", "10")
# Number and MD5 of files in the data repository of Stuttgart, from PDEBench's pdebench_data_urls.csv.
PDEBENCH = {
    "2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_128_Train.hdf5": (164687, "5b21dcccaef4d2145ca579a71153c580"),
    "2D_CFD_Rand_M0.1_Eta0.1_Zeta0.1_periodic_128_Train.hdf5": (164688, "b2733888745a1d64e36df813e979910b"),
    "2D_CFD_Rand_M0.1_Eta1e-08_Zeta1e-08_periodic_512_Train.hdf5": (164689, "ae2552864d0856f58dc74132a2f95d20"),
    "2D_CFD_Rand_M1.0_Eta0.01_Zeta0.01_periodic_128_Train.hdf5": (164690, "21969082d0e9524bcc4708e216148e60"),
    "2D_CFD_Rand_M1.0_Eta0.1_Zeta0.1_periodic_128_Train.hdf5": (164691, "75a34f34a3dcd9bc8ae4b7adf8bf372c"),
    "2D_CFD_Rand_M1.0_Eta1e-08_Zeta1e-08_periodic_512_Train.hdf5": (164692, "04fcc44c39acea69e2869b84cd653d4a"),
    "2D_CFD_Turb_M0.1_Eta1e-08_Zeta1e-08_periodic_512_Train.hdf5": (164685, "844555000d342d2947162c6cf46798e7"),
    "2D_CFD_Turb_M1.0_Eta1e-08_Zeta1e-08_periodic_512_Train.hdf5": (164686, "3f2c7376cde5fb072db0f9814f1c6992"),
    "ns_incom_inhom_2d_512-0.h5": (133280, "54109d46f9c957317bd670ddb2068ac0"),
    "ns_incom_inhom_2d_512-1.h5": (136439, "e280fd3208fccb8ad5c1ff46c4796864"),
    "ns_incom_inhom_2d_512-10.h5": (133309, "f497297295ce3f2ebfefd81d00de31da"),
}


def curl(address, path, md5=None):
    """A command that fetches a file, or the rest of it, unless it is there; and checks it, if its MD5 is known.

    It has its name only when it is whole: curl would call it an error to go on with a file that is (416).
    """
    check = f' && echo "{md5}  {path}" | md5sum -c' if md5 else ""
    fetch = f'curl --fail --location --create-dirs --continue-at - --output "{path}.part" "{address}"'
    return f'test -f "{path}" || ({fetch} && mv "{path}.part" "{path}"){check}'


def rbc():
    yield curl(RBC_ADDRESS, RBC_FILE)
    yield "# 7 GB. If the address is dead: python data_prep.py rbc --simulate paper makes such a flow."


def ocean():
    yield "# pip install copernicusmarine, then copernicusmarine login (free account), then:"
    for file, (west, east, south, north) in (OCEAN_TRAIN | OCEAN_TEST).items():
        yield (
            "copernicusmarine subset --dataset-id cmems_mod_glo_phy_my_0.083deg_P1D-m --variable uo --variable vo"
            f" --minimum-longitude {west} --maximum-longitude {east}"
            f" --minimum-latitude {south} --maximum-latitude {north} --minimum-depth 0 --maximum-depth 1"
            f" --start-datetime 2016-01-01 --end-datetime 2017-12-31 --skip-existing --output-filename {file}"
        )
    yield "# This reanalysis replaces the paper's forecast archive (same grid), which no longer reaches back to 2016."
    yield "# If the service answers 503, run the line again, or ask for less time a file: any number of files will do."
    yield "# If the data set is gone: copernicusmarine describe --contains GLOBAL_MULTIYEAR_PHY names its successor."


def well():
    yield "# rayleigh_benard of The Well; the other data sets: pip install the_well, then the-well-download --help"
    for split, rayleigh, prandtl in itertools.product(("train", "valid", "test"), RAYLEIGH, PRANDTL):
        path = f"data/{split}/rayleigh_benard_Rayleigh_{rayleigh}_Prandtl_{prandtl}.hdf5"
        yield curl(f"{WELL}/{path}", f"rayleigh_benard/{path}")
    yield "# Then: python data_prep.py well --raw rayleigh_benard; one file per split will do, too."
    yield "# If an address is dead: the-well-download fetches the same files from the authors' own server."


def pdearena():
    yield "# Smoke, 43 GB, by Git LFS, which goes on where it stopped; many buoyancies: NavierStokes-2D-conditoned."
    yield "git lfs install"
    yield "git clone https://huggingface.co/datasets/pdearena/NavierStokes-2D || git -C NavierStokes-2D lfs pull"
    yield "# If it is gone: pdearena's scripts make the data anew; python data_prep.py smoke makes such flows here."


def pdebench():
    for file, (number, md5) in PDEBENCH.items():
        yield curl(f"https://darus.uni-stuttgart.de/api/access/datafile/{number}", file, md5)
    yield "# The other files, with their MD5: pdebench/data_download/pdebench_data_urls.csv in the repository PDEBench."
    yield "# If a number is dead: the data are doi 10.18419/darus-2986."


def jet():
    yield f"# The second paper's jet, {JET_FILES[0]} to {JET_FILES[-1]}, is JetFlow in the folder that its code's"
    yield "# README named in 2022, https://roselab1.ucsd.edu/seafile/d/8886a9ee4c5248afab26/ (we have not fetched it)."
    yield "# Measured alike, MODULO's jet on a plate, 2000 frames at 2 kHz:"
    yield curl("https://osf.io/c28de/download", "Ex_4_TR_PIV_Jet.zip")
    yield "unzip -n Ex_4_TR_PIV_Jet.zip"
    yield "# Then: python data_prep.py jet --raw Ex_4_TR_PIV_Jet. If the address is dead: github.com/mendezVKI/MODULO."


HOW = {"jet": jet, "rbc": rbc, "ocean": ocean, "well": well, "pdearena": pdearena, "pdebench": pdebench}
